//! `template.yaml` deploys what the functions need: their routes, their ports' permissions, their settings.
//!
//! Each test checks every deployment that the parameters can ask for, as AWS's own transformation would make it.
//! `scripts/aws-tools` installs what is needed.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must stop"
)]

mod build;
mod change_sets;
mod cost;
mod deploy;
mod deployments;
mod fronts;
mod functions;
mod lint;
mod made;
mod policies;
mod state;
mod versions;
