use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{Timestamp, fmt::rfc2822};

/// The time at which a request claims to be signed: the signed text, and the instant.
#[derive(Debug, Clone)]
pub(super) struct Stamp {
    text: [u8; 16],
    at: Timestamp,
}

impl Stamp {
    /// `YYYYMMDDTHHMMSSZ`, the form of `X-Amz-Date`.
    pub(super) fn basic(text: &str) -> Option<Self> {
        let b: [u8; 16] = text.as_bytes().try_into().ok()?;
        if b.get(8) != Some(&b'T') || b.get(15) != Some(&b'Z') {
            return None;
        }
        let number = |from: usize, to: usize| -> Option<i16> {
            let digits = b.get(from..to)?;
            digits.iter().try_fold(0i16, |sum, digit| {
                digit
                    .is_ascii_digit()
                    .then(|| sum * 10 + i16::from(digit - b'0'))
            })
        };
        let small = |from: usize| -> Option<i8> { number(from, from + 2)?.try_into().ok() };
        let civil = DateTime::new(
            number(0, 4)?,
            small(4)?,
            small(6)?,
            small(9)?,
            small(11)?,
            small(13)?,
            0,
        )
        .ok()?;
        let at = Offset::UTC.to_timestamp(civil).ok()?;
        Some(Self { text: b, at })
    }

    /// The `Date` header, for clients that send no `X-Amz-Date`: HTTP's own form, or the basic form.
    pub(super) fn of_date_header(text: &str) -> Option<Self> {
        if let Some(stamp) = Self::basic(text) {
            return Some(stamp);
        }
        let at = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        let c = Offset::UTC.to_datetime(at);
        // Such a client signs the basic form of the same instant. Years beyond 9999 have no basic form.
        Self::basic(&format!(
            "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
            c.year(),
            c.month(),
            c.day(),
            c.hour(),
            c.minute(),
            c.second()
        ))
    }

    /// The text that goes into the string to sign.
    pub(super) fn text(&self) -> &str {
        // These are digits, `T` and `Z`.
        str::from_utf8(&self.text).unwrap_or_default()
    }

    /// The day, `YYYYMMDD`.
    pub(super) fn day(&self) -> &str {
        self.text().get(..8).unwrap_or_default()
    }

    /// The instant.
    pub(super) fn at(&self) -> Timestamp {
        self.at
    }
}
