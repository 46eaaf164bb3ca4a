//! What the benchmarks measure, as one file of JSON, and all that is made from it: the tables of docs/performance.md and
//! the README, the plots, and a simulation of the deployment on AWS.
//!
//! `make bench` measures and writes them. The test `performance` checks that the committed pages and plots are
//! those that the committed results give.

mod machine;
mod numbers;
mod pages;
mod plots;
mod results;
mod simulation;
mod svg;
mod tables;

use std::error::Error;

pub use machine::Machine;
pub use pages::{Made, made, write};
pub use plots::BARE;
pub use results::{
    Bound, Comparison, Figure, Measure, OpenLoop, OpenSide, Part, Ratio, Results, Samples, Side,
    Target, crate_figures,
};

/// The outcome of reading files, which stops at the first that cannot be used.
pub type Fallible<T> = Result<T, Box<dyn Error>>;

/// Where the results are, from the root of the project.
pub const RESULTS: &str = "docs/performance/results.json";
/// Where each part of the benchmarks leaves what it measured, from the root of the project.
pub const MEASURED: &str = "target/bench";
/// The instructions of each operation by crate, which `scripts/bench-instructions write` counts.
pub const PROFILE: &str = "docs/performance/profile.json";
