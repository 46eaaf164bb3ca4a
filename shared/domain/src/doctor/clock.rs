//! Compares this machine's clock with dates that other clocks have written.

use jiff::{SignedDuration, Timestamp};

use super::{Code, Finding};

/// AWS refuses a signature beyond this.
const WRONG: SignedDuration = SignedDuration::from_mins(5);
/// Network and load explain less.
const DIFFERS: SignedDuration = SignedDuration::from_secs(30);

/// A finding about the newest date in the table. No date of the past can be ahead of a clock that is right.
pub(super) fn judge(newest: Option<Timestamp>, now: Timestamp) -> Finding {
    let subject = "the table's newest date";
    let Some(newest) = newest else {
        return Finding::new(Code::ClockOk, subject, "the table has no dates yet");
    };
    let ahead = newest.duration_since(now);
    let seen = format!("the newest date is {newest:.0}, this clock says {now:.0}");
    Finding::new(code(ahead), subject, seen)
}

/// A finding about the date that `subject` gave at the same moment, to a second.
pub fn compare(subject: &str, date: Timestamp, now: Timestamp) -> Finding {
    let seen = format!("its date is {date:.0}, this clock says {now:.0}");
    Finding::new(code(date.duration_since(now).abs()), subject, seen)
}

fn code(difference: SignedDuration) -> Code {
    if difference > WRONG {
        Code::ClockWrong
    } else if difference > DIFFERS {
        Code::ClockDiffers
    } else {
        Code::ClockOk
    }
}
