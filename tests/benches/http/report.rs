//! The table at the end.

/// What was measured, with its target.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

struct Line {
    what: String,
    measured: String,
    target: String,
    met: bool,
}

impl Report {
    /// A figure that should be at least `target`.
    pub(crate) fn at_least(&mut self, what: impl Into<String>, measured: f64, target: f64) {
        self.add(
            what.into(),
            format!("{measured:.3}"),
            format!(">= {target}"),
            measured >= target,
        );
    }

    /// A figure that should be at most `target`.
    pub(crate) fn at_most(
        &mut self,
        what: impl Into<String>,
        measured: f64,
        target: f64,
        unit: &str,
    ) {
        let (measured_text, target_text) =
            (format!("{measured:.2}{unit}"), format!("<= {target}{unit}"));
        self.add(what.into(), measured_text, target_text, measured <= target);
    }

    fn add(&mut self, what: String, measured: String, target: String, met: bool) {
        self.lines.push(Line {
            what,
            measured,
            target,
            met,
        });
    }

    pub(crate) fn print(&self) {
        println!("\n{:<58}{:>12}{:>12}", "in short", "measured", "target");
        for Line {
            what,
            measured,
            target,
            met,
        } in &self.lines
        {
            let verdict = if *met { "met" } else { "MISSED" };
            println!("{what:<58}{measured:>12}{target:>12}  {verdict}");
        }
    }
}
