//! Plots as SVG: bars beside each other, and curves over an axis.

use std::fmt::Write as _;

use crate::numbers;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 330.0;
const RIGHT: f64 = 70.0;
const BAR: f64 = 14.0;
/// Colours that differ in brightness too, for readers who do not see all colours.
const COLOURS: [&str; 8] = [
    "#1b4f8f", "#b0b7c3", "#d97a1f", "#4d9a58", "#8a4fa3", "#c23b50", "#5bb8c9", "#8c6d46",
];

/// A drawing that grows.
struct Drawing(String);

impl Drawing {
    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = text
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        self.line(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
        ));
    }

    fn bar(&mut self, x: f64, y: f64, width: f64, colour: &str) {
        self.line(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{BAR}" fill="{colour}"/>"#
        ));
    }

    fn rule(&mut self, from: (f64, f64), to: (f64, f64), colour: &str) {
        self.line(format_args!(
            r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{colour}"/>"#,
            from.0, from.1, to.0, to.1
        ));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _written = self.0.write_fmt(line);
        self.0.push('\n');
    }

    /// Draws the names of the colours below the title, in as many rows as they need. Returns where the plot may begin.
    fn legend(&mut self, names: &[String]) -> f64 {
        let (mut x, mut y) = (16.0, 34.0);
        for (name, colour) in names.iter().zip(COLOURS) {
            let width = BAR + 24.0 + 6.6 * f64::from(u32::try_from(name.len()).unwrap_or(0));
            if x > 16.0 && x + width > WIDTH {
                (x, y) = (16.0, y + 18.0);
            }
            self.bar(x, y, BAR, colour);
            self.text(x + BAR + 6.0, y + 11.0, "start", name);
            x += width;
        }
        y + 34.0
    }

    fn finished(self, title: &str, height: f64) -> String {
        let mut whole = Self(String::new());
        whole.line(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" width=\"{WIDTH:.0}\" \
             height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\" role=\"img\">"
        ));
        whole.line(format_args!("<title>{title}</title>"));
        whole.line(format_args!(
            r##"<rect width="{WIDTH:.0}" height="{height:.0}" fill="#fff"/>"##
        ));
        whole.line(format_args!(r#"<g font-size="15" font-weight="bold">"#));
        whole.text(16.0, 22.0, "start", title);
        whole.line(format_args!("</g>"));
        whole.0 + &self.0 + "</svg>\n"
    }
}

/// Some bars with one label.
pub(crate) struct Group {
    pub(crate) label: String,
    /// Each bar is a stack of parts.
    pub(crate) bars: Vec<Bar>,
}

pub(crate) struct Bar {
    /// The index of the colour of the first part.
    pub(crate) colour: usize,
    pub(crate) parts: Vec<f64>,
    /// What stands at its end.
    pub(crate) text: String,
}

/// Groups of horizontal bars. `legend` names the colours, `mark` is a value with a rule through all groups.
pub(crate) fn bars(title: &str, legend: &[String], groups: &[Group], mark: Option<f64>) -> String {
    let all = groups.iter().flat_map(|group| &group.bars);
    let most = all
        .map(|bar| bar.parts.iter().sum::<f64>())
        .chain(mark)
        .fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| LEFT + value / most * (WIDTH - LEFT - RIGHT);
    let mut drawing = Drawing(String::new());
    let top = drawing.legend(legend);
    let mut y = top;
    for group in groups {
        let height = BAR * f64::from(u32::try_from(group.bars.len()).unwrap_or(0));
        let middle = y + height / 2.0 + 4.0;
        drawing.text(LEFT - 10.0, middle, "end", &group.label);
        for bar in &group.bars {
            let mut begun = 0.0;
            for (at, part) in bar.parts.iter().enumerate() {
                let colour = COLOURS.get(bar.colour + at).unwrap_or(&"#222");
                drawing.bar(x(begun), y, x(begun + part) - x(begun), colour);
                begun += part;
            }
            drawing.text(x(begun) + 5.0, y + 11.0, "start", &bar.text);
            y += BAR;
        }
        y += 9.0;
    }
    if let Some(mark) = mark {
        drawing.rule((x(mark), top - 4.0), (x(mark), y - 5.0), "#c23b50");
    }
    drawing.finished(title, y + 8.0)
}

/// A curve: its points have values on both axes.
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// The axes of [`curves`]: places on the horizontal one with their texts, and the vertical one's text.
pub(crate) struct Axes<'a> {
    pub(crate) places: &'a [(f64, &'a str)],
    pub(crate) across: &'a str,
    pub(crate) up: &'a str,
}

/// Curves. The horizontal axis is what the caller makes it, the vertical one is logarithmic. `mark` is a value on the
/// vertical axis with a rule across and its text.
pub(crate) fn curves(
    title: &str,
    axes: &Axes<'_>,
    curves: &[Curve],
    mark: Option<(f64, &str)>,
) -> String {
    const HEIGHT: f64 = 440.0;
    const FROM: f64 = 84.0;
    const BOTTOM: f64 = HEIGHT - 48.0;
    let values = curves.iter().flat_map(|curve| &curve.points);
    let (low, high) = values
        .map(|(_, y)| *y)
        .chain(mark.map(|(value, _)| value))
        .filter(|value| *value > 0.0)
        .fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    let (low, high) = (low.min(high).log10().floor(), high.log10().ceil());
    let (first, last) = axes
        .places
        .iter()
        .fold((f64::MAX, f64::MIN), |(first, last), (place, _)| {
            (first.min(*place), last.max(*place))
        });
    let x = |value: f64| FROM + (value - first) / (last - first) * (WIDTH - FROM - RIGHT);
    let mut drawing = Drawing(String::new());
    let names: Vec<String> = curves.iter().map(|curve| curve.name.clone()).collect();
    let top = drawing.legend(&names) + 8.0;
    let y = |value: f64| {
        let share = (value.log10() - low) / (high - low).max(1.0);
        BOTTOM - share * (BOTTOM - top)
    };
    let mut decade = low;
    while decade <= high {
        let value = 10.0_f64.powf(decade);
        drawing.rule((FROM, y(value)), (WIDTH - RIGHT, y(value)), "#dde1e7");
        let text = if value < 1.0 {
            format!("{value}")
        } else {
            numbers::plain(value).replace(".0", "")
        };
        drawing.text(FROM - 8.0, y(value) + 4.0, "end", &text);
        decade += 1.0;
    }
    for (place, text) in axes.places {
        drawing.rule((x(*place), BOTTOM), (x(*place), BOTTOM + 5.0), "#222");
        drawing.text(x(*place), BOTTOM + 20.0, "middle", text);
    }
    let middle = FROM.midpoint(WIDTH - RIGHT);
    drawing.text(middle, HEIGHT - 10.0, "middle", axes.across);
    drawing.text(FROM - 8.0, top - 10.0, "end", axes.up);
    if let Some((value, text)) = mark {
        drawing.rule((FROM, y(value)), (WIDTH - RIGHT, y(value)), "#c23b50");
        drawing.text(WIDTH - RIGHT, y(value) - 5.0, "end", text);
    }
    for (curve, colour) in curves.iter().zip(COLOURS) {
        let points: Vec<String> = (curve.points.iter())
            .filter(|(_, value)| *value > 0.0)
            .map(|(place, value)| format!("{:.1},{:.1}", x(*place), y(*value)))
            .collect();
        drawing.line(format_args!(
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            points.join(" ")
        ));
    }
    drawing.finished(title, HEIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values_and_texts_are_escaped() {
        let bar = |colour, part, text: &str| Bar {
            colour,
            parts: vec![part],
            text: text.to_owned(),
        };
        let groups = [Group {
            label: "a < b".to_owned(),
            bars: vec![bar(0, 1.0, "1.00"), bar(1, 0.5, "0.50")],
        }];
        let made = bars(
            "Title",
            &["one".to_owned(), "two".to_owned()],
            &groups,
            Some(0.5),
        );
        assert!(made.contains("a &lt; b"), "{made}");
        let long = format!(r#"width="{:.1}" height="14""#, WIDTH - LEFT - RIGHT);
        let short = format!(r#"width="{:.1}" height="14""#, (WIDTH - LEFT - RIGHT) / 2.0);
        assert!(made.contains(&long) && made.contains(&short), "{made}");
        assert!(made.ends_with("</svg>\n"));
    }

    #[test]
    fn curves_have_a_rule_for_each_decade_and_a_line_for_each_curve() {
        let curve = Curve {
            name: "c".to_owned(),
            points: vec![(0.0, 0.5), (1.0, 50.0)],
        };
        let axes = Axes {
            places: &[(0.0, "p50"), (1.0, "p90")],
            across: "percentile",
            up: "ms",
        };
        let made = curves("Title", &axes, &[curve], None);
        assert_eq!(made.matches("<polyline").count(), 1);
        for decade in [">0.1<", ">1<", ">10<", ">100<"] {
            assert!(made.contains(decade), "{decade} {made}");
        }
    }
}
