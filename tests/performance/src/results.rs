//! The results: what each part of the benchmarks measured, with all samples.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::numbers::rounded;
use crate::{Fallible, Machine};

/// All parts, in the order in which the pages show them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// What the reader must know of this run before its figures; the pages show it.
    pub note: Option<String>,
    pub command: String,
    pub parts: Vec<Part>,
}

/// What one part of the benchmarks measured, in one go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// The name, with which `KEYWAY_BENCH_ONLY` chooses it.
    pub name: String,
    /// The day, as `2026-01-31`.
    pub date: String,
    /// The commit that was measured, if it is known.
    pub commit: Option<String>,
    pub machine: Machine,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comparisons: Vec<Comparison>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_loop: Vec<OpenLoop>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Figure>,
}

/// The samples of one figure. All are kept with four significant digits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    pub samples: Vec<f64>,
}

/// Several servers under the same load, in turns. Each sample is of one turn.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The operation, such as `decrypt`.
    pub operation: String,
    /// `HTTP/1.1` or `HTTP/2`, and how it is protected.
    pub transport: String,
    pub connections: usize,
    pub sides: Vec<Side>,
    pub ratios: Vec<Ratio>,
}

/// A server of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Side {
    pub name: String,
    /// Requests a second.
    pub rate: Samples,
    pub p50_ms: Samples,
    pub p99_ms: Samples,
    /// The server's processor time for each request, in microseconds, outside of the kernel.
    pub user_us: Samples,
    /// The same within the kernel.
    pub system_us: Samples,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Requests a second.
    Rate,
    /// The server's processor time of a request.
    Processor,
    /// The 99th percentile of the latency.
    P99,
}

/// The first side's figure, divided by another side's in the same turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    pub of: Measure,
    /// The name of the other side.
    pub to: String,
    pub ratio: Samples,
    pub target: Option<Target>,
}

/// Latency at a fixed rate: each request has a time at which it is due, and its latency begins then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenLoop {
    pub operation: String,
    pub transport: String,
    pub connections: usize,
    /// The rate on all sides, half of the first side's highest one.
    pub rate: f64,
    pub sides: Vec<OpenSide>,
    /// The first side's p99 to the second's.
    pub ratio: Ratio,
}

/// A server under a fixed rate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OpenSide {
    pub name: String,
    pub p50_ms: Samples,
    pub p99_ms: Samples,
    pub p999_ms: Samples,
    /// Percentiles of all turns together, and the latency of each in milliseconds.
    pub percentiles: Vec<f64>,
    pub milliseconds: Vec<f64>,
}

/// A figure that is no rate of requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    /// `ms`, `MB`, `ns`, or nothing for a ratio.
    pub unit: String,
    pub value: Samples,
    /// What the value is divided by for the ratio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// The target of the ratio if there is one, else of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

/// A limit of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Target {
    pub bound: Bound,
    pub value: f64,
    pub met: bool,
}

/// The side of a target on which a figure should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    AtLeast,
    AtMost,
}

impl Target {
    /// The target that a figure should be at least `value`.
    #[must_use]
    pub fn at_least(value: f64, measured: f64) -> Self {
        Self {
            bound: Bound::AtLeast,
            value,
            met: measured >= value,
        }
    }

    /// The target that a figure should be at most `value`.
    #[must_use]
    pub fn at_most(value: f64, measured: f64) -> Self {
        Self {
            bound: Bound::AtMost,
            value,
            met: measured <= value,
        }
    }

    /// The target of `bound` and `value`.
    #[must_use]
    pub fn new(bound: Bound, value: f64, measured: f64) -> Self {
        match bound {
            Bound::AtLeast => Self::at_least(value, measured),
            Bound::AtMost => Self::at_most(value, measured),
        }
    }

    /// `at least 0.5` or `at most 1.9`.
    #[must_use]
    pub fn text(&self) -> String {
        match self.bound {
            Bound::AtLeast => format!("at least {}", self.value),
            Bound::AtMost => format!("at most {}", self.value),
        }
    }
}

impl Samples {
    /// These samples; all figures are 0 if there are none.
    #[must_use]
    pub fn of(samples: Vec<f64>) -> Self {
        let samples: Vec<f64> = samples.into_iter().map(rounded).collect();
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        Self {
            median: sorted.get(sorted.len() / 2).copied().unwrap_or_default(),
            least: sorted.first().copied().unwrap_or_default(),
            most: sorted.last().copied().unwrap_or_default(),
            samples,
        }
    }

    /// One sample.
    #[must_use]
    pub fn one(value: f64) -> Self {
        Self::of(vec![value])
    }
}

impl Side {
    /// The processor time of a request, with the kernel's part, in microseconds.
    #[must_use]
    pub fn processor_us(&self) -> f64 {
        self.user_us.median + self.system_us.median
    }
}

impl Comparison {
    /// Adds the ratio of the first side's figure to that of the side `to`, turn by turn: neighbouring turns ran under the
    /// same load of the machine.
    ///
    /// # Errors
    /// If there is no such side.
    pub fn compare(
        &mut self,
        of: Measure,
        to: &str,
        target: Option<(Bound, f64)>,
    ) -> Fallible<&Ratio> {
        let named = self.sides.iter().find(|side| side.name == to);
        let (first, other) = self.sides.first().zip(named).ok_or("no such side")?;
        let samples = |side: &Side| match of {
            Measure::Rate => side.rate.samples.clone(),
            Measure::P99 => side.p99_ms.samples.clone(),
            Measure::Processor => {
                let both = side.user_us.samples.iter().zip(&side.system_us.samples);
                both.map(|(user, system)| user + system).collect()
            }
        };
        let pairs = samples(first).into_iter().zip(samples(other));
        let ratio = Samples::of(pairs.map(|(first, other)| first / other).collect());
        let target = target.map(|(bound, value)| Target::new(bound, value, ratio.median));
        self.ratios.push(Ratio {
            of,
            to: to.to_owned(),
            ratio,
            target,
        });
        self.ratios.last().ok_or_else(|| "no ratio".into())
    }

    /// `decrypt, HTTP/1.1, 32 connections`.
    #[must_use]
    pub fn name(&self) -> String {
        name(&self.operation, &self.transport, self.connections)
    }
}

impl OpenLoop {
    /// `decrypt, HTTP/1.1, 32 connections`.
    #[must_use]
    pub fn name(&self) -> String {
        name(&self.operation, &self.transport, self.connections)
    }
}

fn name(operation: &str, transport: &str, connections: usize) -> String {
    let plural = if connections == 1 { "" } else { "s" };
    format!("{operation}, {transport}, {connections} connection{plural}")
}

impl Part {
    /// An empty part, measured here.
    ///
    /// # Errors
    /// If the machine does not describe itself.
    pub fn new(name: &str, date: String, commit: Option<String>) -> Fallible<Self> {
        Ok(Self {
            name: name.to_owned(),
            date,
            commit,
            machine: Machine::here()?,
            ..Self::default()
        })
    }

    /// Writes it to its file in this folder.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, folder: &Path) -> Fallible<()> {
        std::fs::create_dir_all(folder)?;
        let text = serde_json::to_string(self)?;
        Ok(std::fs::write(
            folder.join(format!("{}.json", self.name)),
            text,
        )?)
    }

    /// Whether anything was measured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.comparisons.is_empty() && self.open_loop.is_empty() && self.figures.is_empty()
    }
}

/// The parts in the order of the pages.
const PARTS: [&str; 12] = [
    "speed",
    "kes",
    "open",
    "bao",
    "aws",
    "observers",
    "before",
    "start",
    "scale",
    "postgres",
    "crates",
    "lambda",
];

impl Results {
    /// The parts whose files are in this folder.
    ///
    /// # Errors
    /// If there is none, or one cannot be read.
    pub fn assemble(folder: &Path, note: Option<String>) -> Fallible<Self> {
        let mut parts = Vec::new();
        for name in PARTS {
            let file = folder.join(format!("{name}.json"));
            if file.exists() {
                parts.push(serde_json::from_str(&std::fs::read_to_string(file)?)?);
            }
        }
        if parts.is_empty() {
            return Err(format!("{} has no results", folder.display()).into());
        }
        let command = "make bench".to_owned();
        Ok(Self {
            note,
            command,
            parts,
        })
    }

    /// Reads the results in this text.
    ///
    /// # Errors
    /// If it is not a file of results.
    pub fn parse(text: &str) -> Fallible<Self> {
        Ok(serde_json::from_str(text)?)
    }

    /// The file's text: one line for each field, and one for each list of numbers.
    ///
    /// # Errors
    /// If a number is not finite.
    pub fn text(&self) -> Fallible<String> {
        let pretty = serde_json::to_string_pretty(self)?;
        let (mut text, mut list) = (String::new(), None::<String>);
        for line in pretty.lines() {
            let trimmed = line.trim();
            match &mut list {
                Some(numbers) if trimmed.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                    if !numbers.ends_with('[') {
                        numbers.push(' ');
                    }
                    numbers.push_str(trimmed);
                }
                Some(numbers) => {
                    text.push_str(numbers);
                    if trimmed.starts_with(']') {
                        text.push_str(trimmed);
                    } else {
                        text.push('\n');
                        text.push_str(line);
                    }
                    text.push('\n');
                    // A list of other values begins anew.
                    list = None;
                }
                None if line.ends_with('[') => list = Some(line.to_owned()),
                None => {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        Ok(text)
    }

    pub(crate) fn part(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }
}

/// The figures in the output of the benchmarks of single crates: lines such as `open  2301 ns   ratio 1.08`, or
/// `signing what is written  1113 ns, 1.31 times that HMAC`.
#[must_use]
pub fn crate_figures(output: &str) -> Vec<Figure> {
    const TARGETS: [(&str, f64); 2] = [("seal, one draw included", 1.5), ("open", 1.2)];
    let figure = |line: &str| {
        let (before, after) = line.split_once(" ns")?;
        let (name, value) = before.trim_end().rsplit_once(' ')?;
        let ratio = after
            .split_whitespace()
            .find_map(|word| word.parse::<f64>().ok())?;
        let name = name.trim().to_owned();
        let target = TARGETS.iter().find(|(known, _)| *known == name);
        Some(Figure {
            unit: "ns".to_owned(),
            value: Samples::one(value.parse().ok()?),
            reference: Some("the least that any design pays".to_owned()),
            ratio: Some(ratio),
            target: target.map(|(_, most)| Target::at_most(*most, ratio)),
            name,
        })
    };
    output.lines().filter_map(figure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &str, rates: &[f64]) -> Side {
        let ones = vec![1.0; rates.len()];
        Side {
            name: name.to_owned(),
            rate: Samples::of(rates.to_vec()),
            user_us: Samples::of(rates.iter().map(|rate| 1000.0 / rate).collect()),
            system_us: Samples::of(ones),
            ..Side::default()
        }
    }

    #[test]
    fn ratio_is_the_median_of_the_turns_and_judged_by_its_target() {
        let mut comparison = Comparison {
            sides: vec![
                side("Keyway", &[50.0, 90.0, 60.0]),
                side("bare", &[100.0, 100.0, 100.0]),
            ],
            ..Comparison::default()
        };
        let target = Some((Bound::AtLeast, 0.61));
        let ratio = comparison.compare(Measure::Rate, "bare", target).unwrap();
        assert_eq!(ratio.ratio.median, 0.6);
        assert!(!ratio.target.unwrap().met);
        let ratio = comparison
            .compare(Measure::Processor, "bare", None)
            .unwrap();
        assert_eq!(ratio.ratio.samples, [1.909, 1.101, 1.606]);
        assert!(comparison.compare(Measure::Rate, "none", None).is_err());
    }

    #[test]
    fn results_come_back_from_their_text_with_lists_in_one_line() {
        let figure = Figure {
            name: "memory".to_owned(),
            value: Samples::of(vec![3.0, 1.0, 2.0]),
            ..Figure::default()
        };
        let mut part = Part::new("start", "2026-01-31".to_owned(), None).unwrap();
        part.machine.flags = vec!["aes".to_owned(), "sha_ni".to_owned()];
        part.figures.push(figure);
        let results = Results {
            parts: vec![part],
            ..Results::default()
        };
        let text = results.text().unwrap();
        assert!(text.contains("\"samples\": [3.0, 1.0, 2.0]\n"), "{text}");
        assert_eq!(Results::parse(&text).unwrap(), results);
    }

    #[test]
    fn figures_of_crates_are_read_from_their_lines() {
        let output = "SHA instructions: true\nopen                             2301 ns   ratio 1.08\n\
                      seal, one draw included          5301 ns   ratio 2.10\n\
                      verifying what is read      540 ns, 1.40 times that HMAC\n\
                      bare hashing             700 ns\n";
        let figures = crate_figures(output);
        let names: Vec<_> = (figures.iter())
            .map(|figure| (figure.name.as_str(), figure.ratio, figure.target))
            .collect();
        let target = |most, ratio| Some(Target::at_most(most, ratio));
        assert_eq!(
            names,
            [
                ("open", Some(1.08), target(1.2, 1.08)),
                ("seal, one draw included", Some(2.1), target(1.5, 2.1)),
                ("verifying what is read", Some(1.4), None),
            ]
        );
        assert!(!figures[1].target.unwrap().met);
    }
}
