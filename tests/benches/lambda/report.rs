//! The figures of a function beside the bare one, and the targets.

use std::time::Duration;

use keyway_performance::{Figure, MEASURED, Part, Samples, Target};

use crate::Fallible;

/// Times of one kind, of a function and of the bare one, taken in turn.
#[derive(Default)]
pub(crate) struct Pairs {
    keyway: Vec<f64>,
    hello: Vec<f64>,
}

impl Pairs {
    pub(crate) fn add(&mut self, keyway: Duration, hello: Duration) {
        self.keyway.push(keyway.as_secs_f64() * 1e3);
        self.hello.push(hello.as_secs_f64() * 1e3);
    }
}

/// This percentile of the samples.
pub(crate) fn hundredth(samples: &[f64], wanted: usize) -> Fallible<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = sorted.len() * wanted / 100;
    Ok(*sorted.get(at).ok_or("nothing was measured")?)
}

/// The lines of the table that have a target, and all figures.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<String>,
    figures: Vec<Figure>,
}

impl Report {
    pub(crate) fn head(what: &str) {
        println!(
            "\n{what:<44}{:>10}{:>10}{:>10}",
            "function", "hello", "over it"
        );
    }

    /// Prints median and 90th percentile. The medians' difference may be as much as `target`, if there is one.
    pub(crate) fn add(
        &mut self,
        function: &str,
        what: &str,
        pairs: &Pairs,
        target: Option<f64>,
    ) -> Fallible<()> {
        let over: Vec<f64> = (pairs.keyway.iter().zip(&pairs.hello))
            .map(|(keyway, hello)| keyway - hello)
            .collect();
        let over = Samples::of(over);
        self.figures.push(Figure {
            name: format!("{function}: {what}, over a bare function"),
            unit: "ms".to_owned(),
            target: target.map(|most| Target::at_most(most, over.median)),
            value: over,
            ..Figure::default()
        });
        for (name, wanted) in [("median", 50), ("p90", 90)] {
            let keyway = hundredth(&pairs.keyway, wanted)?;
            let hello = hundredth(&pairs.hello, wanted)?;
            let over = keyway - hello;
            println!(
                "{:<44}{keyway:>10.3}{hello:>10.3}{over:>10.3}",
                format!("{what}, {name}")
            );
            if let Some(target) = target.filter(|_| wanted == 50) {
                self.judge(
                    &format!("{function}: {what}, over the bare hello"),
                    over,
                    target,
                    " ms",
                );
            }
        }
        Ok(())
    }

    pub(crate) fn judge(&mut self, what: &str, measured: f64, target: f64, unit: &str) {
        let verdict = if measured <= target { "met" } else { "MISSED" };
        let (measured, target) = (format!("{measured:.2}{unit}"), format!("<= {target}{unit}"));
        self.lines
            .push(format!("{what:<72}{measured:>12}{target:>12}  {verdict}"));
    }

    /// Writes the figures, from which docs/performance is made.
    pub(crate) fn write(self) -> Fallible<()> {
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        let mut part = Part::new("lambda", date, None)?;
        part.figures = self.figures;
        part.write(&keyway_tests::project().join(MEASURED))
    }

    pub(crate) fn print(&self) {
        println!("\n{:<72}{:>12}{:>12}", "in short", "measured", "target");
        for line in &self.lines {
            println!("{line}");
        }
    }
}
