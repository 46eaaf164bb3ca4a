//! Joins the lines of the committed document, a third of which is indentation.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

#[expect(
    clippy::disallowed_methods,
    reason = "cargo says by a variable where to write, and is told on stdout what to look at"
)]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=openapi.json");
    let document = fs::read_to_string("openapi.json")?;
    // Strings of JSON hold no line breaks.
    let joined: String = document.lines().map(str::trim_start).collect();
    fs::write(
        Path::new(&env::var("OUT_DIR")?).join("openapi.json"),
        joined,
    )?;
    Ok(())
}
