//! The pages and plots that the committed files give.

use std::collections::BTreeSet;
use std::path::Path;

use crate::simulation::{Inputs, simulate};
use crate::{Fallible, PROFILE, RESULTS, Results, plots, tables};

const PAGES: [&str; 2] = ["docs/performance.md", "README.md"];
const BEGIN: &str = "<!-- performance: ";
const END: &str = "<!-- /performance -->";

/// A file that is made, relative to the project's root.
pub struct Made {
    pub path: String,
    pub text: String,
}

/// All pages with their tables, and all plots, from the results, the profile and the costs below `project`.
///
/// # Errors
/// If one of these files is not what it should be, or a page and the blocks do not fit together.
pub fn made(project: &Path) -> Fallible<Vec<Made>> {
    let read = |path: &str| {
        let text = std::fs::read_to_string(project.join(path));
        text.map_err(|error| format!("{path}: {error}"))
    };
    let results = Results::parse(&read(RESULTS)?)?;
    let profile = serde_json::from_str(&read(PROFILE)?)?;
    let simulated = simulate(&Inputs::read(project, &results)?);
    let mut blocks = tables::blocks(&results, &profile);
    blocks.extend(simulated.blocks);
    let (mut made, mut used) = (Vec::new(), BTreeSet::new());
    for path in PAGES {
        let text = completed(&read(path)?, &blocks, &mut used)?;
        let path = path.to_owned();
        made.push(Made { path, text });
    }
    if let Some((unused, _)) = blocks.iter().find(|(name, _)| !used.contains(*name)) {
        return Err(format!("no page has the block `{unused}`").into());
    }
    let plots = plots::plots(&results).into_iter().chain(simulated.plots);
    made.extend(plots.map(|(name, text)| Made {
        path: format!("docs/performance/{name}"),
        text,
    }));
    Ok(made)
}

/// Puts the parts that were measured into the committed results, and writes the pages and plots that they give. Parts that
/// were not measured are dropped. Returns the paths of what it wrote.
///
/// # Errors
/// If nothing was measured, or a file cannot be read or written.
pub fn write(project: &Path, measured: &Path, note: Option<String>) -> Fallible<Vec<String>> {
    let results = Results::assemble(measured, note)?;
    std::fs::create_dir_all(project.join(RESULTS).parent().unwrap_or(project))?;
    std::fs::write(project.join(RESULTS), results.text()?)?;
    let mut written = vec![RESULTS.to_owned()];
    for Made { path, text } in made(project)? {
        std::fs::write(project.join(&path), text)?;
        written.push(path);
    }
    Ok(written)
}

/// The page with new text between the marks.
fn completed(
    page: &str,
    blocks: &[(&'static str, String)],
    used: &mut BTreeSet<&'static str>,
) -> Fallible<String> {
    let (mut made, mut rest) = (String::new(), page);
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (name, after) = after.split_once(" -->").ok_or("a mark has no end")?;
        let (_, after) = after.split_once(END).ok_or("a block has no end")?;
        let (known, text) = (blocks.iter().find(|(known, _)| *known == name))
            .ok_or_else(|| format!("no block is named `{name}`"))?;
        made += &format!("{before}{BEGIN}{name} -->{text}{END}");
        used.insert(known);
        rest = after;
    }
    Ok(made + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_replace_what_is_between_their_marks() {
        let blocks = [("one", "\nnew\n".to_owned())];
        let mut used = BTreeSet::new();
        let page = "a <!-- performance: one -->old<!-- /performance --> b";
        let made = completed(page, &blocks, &mut used).unwrap();
        assert_eq!(
            made,
            "a <!-- performance: one -->\nnew\n<!-- /performance --> b"
        );
        assert!(used.contains("one"));
        let unknown = completed("<!-- performance: two -->", &blocks, &mut used);
        assert!(unknown.is_err());
    }
}
