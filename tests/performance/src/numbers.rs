//! Numbers as the tables write them.

/// With commas, and no digits after the point from ten on.
pub(crate) fn plain(number: f64) -> String {
    if number != 0.0 && number.abs() < 10.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && digit != '-' && (digits.len() - at).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Two digits after the point.
pub(crate) fn two(number: f64) -> String {
    format!("{number:.2}")
}

/// Milliseconds, three digits in all.
pub(crate) fn milliseconds(number: f64) -> String {
    match number {
        small if small < 1.0 => format!("{small:.3}"),
        middle if middle < 10.0 => format!("{middle:.2}"),
        large if large < 100.0 => format!("{large:.1}"),
        huge => plain(huge),
    }
}

/// At most this many significant digits: no figure is more accurate, and the file stays short.
pub(crate) fn rounded(number: f64) -> f64 {
    format!("{number:.3e}").parse().unwrap_or(number)
}

/// Dollars with cents, or whole ones from a hundred on.
pub(crate) fn dollars(amount: f64) -> String {
    if amount < 99.995 {
        format!("${amount:.2}")
    } else {
        format!("${}", plain(amount))
    }
}

/// Hundredths, to one digit where they are few.
pub(crate) fn hundredths(share: f64) -> String {
    let hundredths = share * 100.0;
    match hundredths {
        0.0 => "0 %".to_owned(),
        few if few < 0.1 => "below 0.1 %".to_owned(),
        few if few < 10.0 => format!("{few:.1} %"),
        many => format!("{} %", plain(many)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas_and_few_digits() {
        let texts = [0.0, 7.25, 12.0, 1234.4, 1_234_567.0, -1234.0].map(plain);
        assert_eq!(texts, ["0", "7.2", "12", "1,234", "1,234,567", "-1,234"]);
        assert_eq!(rounded(123_456.0), 123_500.0);
        assert_eq!(rounded(0.012_345_6), 0.012_35);
        assert_eq!([99.5, 12_345.0].map(dollars), ["$99.50", "$12,345"]);
        let shares = [0.0, 0.000_1, 0.05, 3.5].map(hundredths);
        assert_eq!(shares, ["0 %", "below 0.1 %", "5.0 %", "350 %"]);
    }
}
