use std::path::{Path, PathBuf};

/// The root of the project.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is in the project")
}

/// The default of a parameter of template.yaml.
///
/// # Panics
/// When the template has no such parameter, or it has no default.
pub fn parameter_default(name: &str) -> String {
    let template = std::fs::read_to_string(project().join("template.yaml")).expect("a template");
    let (_, parameter) = template
        .split_once(&format!("\n  {name}:\n"))
        .expect("a parameter");
    let (_, default) = parameter.split_once("\n    Default: ").expect("a default");
    let default = default.lines().next().unwrap_or_default();
    default.trim_matches('"').to_owned()
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
