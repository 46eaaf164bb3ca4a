use std::path::{Path, PathBuf};

/// The root of the project.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is in the project")
}

/// A tool that `scripts/aws-tools` has installed. Without it a test cannot run: in CI that is a failure, elsewhere a
/// printed line.
pub fn aws_tool(name: &str) -> Option<PathBuf> {
    let tool = project().join(".cache/aws-tools/bin").join(name);
    if tool.exists() {
        return Some(tool);
    }
    assert!(
        crate::aws::variable("CI").is_none(),
        "{name} is not installed: run scripts/aws-tools"
    );
    crate::aws::skipped(&format!("{name} is not installed; run scripts/aws-tools"));
    None
}
