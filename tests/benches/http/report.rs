//! What was measured: a file for each part, from which docs/performance is made, and the table at the end.

use std::path::{Path, PathBuf};
use std::process::Command;

use keyway_performance::{
    Bound, Comparison, Fallible, Figure, Measure, OpenLoop, Part, Samples, Target,
};

use crate::process::Memory;

/// The measured parts. Each is written to its file as soon as it is complete.
pub(crate) struct Report {
    folder: PathBuf,
    part: Part,
    lines: Vec<Line>,
}

struct Line {
    what: String,
    measured: String,
    target: String,
    met: bool,
}

impl Report {
    /// Writes the parts below this folder.
    pub(crate) fn to(folder: &Path) -> Fallible<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            part: Part::default(),
            lines: Vec::new(),
        })
    }

    /// What is reported from here on belongs to this part.
    pub(crate) fn begin(&mut self, name: &str) -> Fallible<()> {
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        self.part = Part::new(name, date, commit())?;
        Ok(())
    }

    /// Writes the part, unless nothing was measured.
    pub(crate) fn end(&mut self) -> Fallible<()> {
        let part = std::mem::take(&mut self.part);
        if part.is_empty() {
            return Ok(());
        }
        part.write(&self.folder)
    }

    /// Prints a comparison, and keeps it.
    pub(crate) fn comparison(&mut self, comparison: Comparison) {
        println!("\n{}", comparison.name());
        println!(
            "{:<30}{:>12}{:>10}{:>10}{:>16}{:>8}{:>8}",
            "", "requests/s", "p50 ms", "p99 ms", "server CPU us", "user", "kernel"
        );
        for side in &comparison.sides {
            println!(
                "{:<30}{:>12.0}{:>10.3}{:>10.3}{:>16.1}{:>8.1}{:>8.1}",
                side.name,
                side.rate.median,
                side.p50_ms.median,
                side.p99_ms.median,
                side.processor_us(),
                side.user_us.median,
                side.system_us.median
            );
        }
        for ratio in &comparison.ratios {
            let what = format!(
                "{}: {} to {}",
                comparison.name(),
                measure(ratio.of),
                ratio.to
            );
            self.judge(&what, &ratio.ratio, "", ratio.target);
        }
        self.part.comparisons.push(comparison);
    }

    /// Prints latencies at a fixed rate, and keeps them.
    pub(crate) fn open_loop(&mut self, open: OpenLoop) {
        println!("\n{} at {:.0} a second", open.name(), open.rate);
        println!(
            "{:<30}{:>10}{:>10}{:>10}",
            "", "p50 ms", "p99 ms", "p99.9 ms"
        );
        for side in &open.sides {
            println!(
                "{:<30}{:>10.3}{:>10.3}{:>10.3}",
                side.name, side.p50_ms.median, side.p99_ms.median, side.p999_ms.median
            );
        }
        let what = format!("{}: p99 to {} at half rate", open.name(), open.ratio.to);
        self.judge(&what, &open.ratio.ratio, "", open.ratio.target);
        self.part.open_loop.push(open);
    }

    /// A figure that should be on this side of a target.
    pub(crate) fn figure(
        &mut self,
        name: impl Into<String>,
        samples: Vec<f64>,
        unit: &str,
        bound: Bound,
        target: f64,
    ) {
        let value = Samples::of(samples);
        self.keep(Figure {
            name: name.into(),
            unit: unit.to_owned(),
            target: Some(Target::new(bound, target, value.median)),
            value,
            ..Figure::default()
        });
    }

    /// The memory of a process, which should be at most this many MB, and how much of it is no page of a file.
    pub(crate) fn memory(&mut self, name: &str, memory: &[Memory], most: f64) {
        let of = |part: fn(&Memory) -> f64| memory.iter().map(part).collect::<Vec<_>>();
        self.figure(name, of(|memory| memory.whole), "MB", Bound::AtMost, most);
        self.keep(Figure {
            name: format!("{name}: without pages of the program's file"),
            unit: "MB".to_owned(),
            value: Samples::of(of(|memory| memory.own)),
            ..Figure::default()
        });
    }

    /// Keeps a figure.
    pub(crate) fn keep(&mut self, figure: Figure) {
        let ratio = figure.ratio.map(Samples::one);
        let unit = if ratio.is_some() { "" } else { &figure.unit };
        let judged = ratio.as_ref().unwrap_or(&figure.value);
        self.judge(&figure.name, judged, unit, figure.target);
        self.part.figures.push(figure);
    }

    /// Prints a figure, and adds it to the table at the end if it has a target.
    fn judge(&mut self, what: &str, samples: &Samples, unit: &str, target: Option<Target>) {
        let text = |value: f64| format!("{value:.3} {unit}").trim_end().to_owned();
        let (least, most) = (text(samples.least), text(samples.most));
        println!("{what}: {} ({least} to {most})", text(samples.median));
        if let Some(target) = target {
            self.lines.push(Line {
                what: what.to_owned(),
                measured: text(samples.median),
                target: target.text(),
                met: target.met,
            });
        }
    }

    pub(crate) fn print(&self) {
        println!("\n{:<82}{:>12}{:>16}", "in short", "measured", "target");
        for Line {
            what,
            measured,
            target,
            met,
        } in &self.lines
        {
            let verdict = if *met { "met" } else { "MISSED" };
            println!("{what:<82}{measured:>12}{target:>16}  {verdict}");
        }
    }
}

fn measure(of: Measure) -> &'static str {
    match of {
        Measure::Rate => "rate",
        Measure::Processor => "processor time",
        Measure::P99 => "p99",
    }
}

/// The commit of the working tree, if git knows it, and whether it is changed.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    // The results themselves are no change of what was measured.
    let changed = git(&[
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ":!/docs",
        ":!/README.md",
    ])?;
    let suffix = if changed.is_empty() { "" } else { ", changed" };
    Some(commit + suffix)
}
