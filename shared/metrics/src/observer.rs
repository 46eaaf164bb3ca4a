//! Counts and times every request.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use futures_util::future::{FutureExt, ready};
use keyway_http::{Answered, Observer, Outcome};
use prometheus::{Histogram, IntCounter};

use crate::Metrics;
use crate::families::Requests;

/// The name of KES's dialect.
const KES: &str = "kes";

/// The outcomes of answers.
pub(crate) const SUCCESS: &str = "success";
pub(crate) const REFUSED: &str = "refused";
pub(crate) const FAILED: &str = "failed";

/// A kind of answers. There are few: see the crate's documentation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    dialect: &'static str,
    operation: &'static str,
    class: &'static str,
    status: u16,
}

/// The series in which answers of one kind count. To find each in its family costs more than to count.
struct Series {
    answered: IntCounter,
    seconds: Histogram,
    outcomes: IntCounter,
    /// The counter of KES's metrics, for answers of its dialect.
    of_kes: Option<IntCounter>,
}

/// The series that were counted in so far.
#[derive(Default)]
pub(crate) struct KnownSeries(RwLock<HashMap<Kind, Series>>);

impl Metrics {
    fn told(&self, told: &Answered<'_>) {
        let kind = Kind {
            dialect: told.dialect,
            operation: told.operation.name,
            class: told.error.unwrap_or("success"),
            status: told.status.as_u16(),
        };
        let seconds = told.elapsed.as_secs_f64();
        self.count(kind, seconds);
        self.requests.in_flight.dec();
        if kind.dialect == KES {
            self.of_kes.active.dec();
            self.of_kes.seconds.observe(seconds);
        }
    }

    fn count(&self, kind: Kind, seconds: f64) {
        let KnownSeries(known) = &self.known_series;
        // Ignore poisoning: an entry is added whole.
        let found = known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = found.get(&kind) {
            return series.count(seconds);
        }
        drop(found);
        let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
        let series = known.entry(kind).or_insert_with(|| self.series(kind));
        series.count(seconds);
    }

    fn series(&self, kind: Kind) -> Series {
        let Kind {
            dialect,
            operation,
            class,
            status,
        } = kind;
        let (outcome, of_kes) = match status {
            ..400 => (SUCCESS, &self.of_kes.success),
            400..500 => (REFUSED, &self.of_kes.error),
            _ => (FAILED, &self.of_kes.failure),
        };
        let Requests {
            answered,
            seconds,
            outcomes,
            ..
        } = &self.requests;
        Series {
            answered: answered.with_label_values(&[dialect, operation, class]),
            seconds: seconds.with_label_values(&[dialect, operation]),
            outcomes: outcomes.with_label_values(&[outcome]),
            of_kes: (dialect == KES).then(|| of_kes.with_label_values(&[&status.to_string()])),
        }
    }
}

impl Series {
    fn count(&self, seconds: f64) {
        self.answered.inc();
        self.seconds.observe(seconds);
        self.outcomes.inc();
        if let Some(counter) = &self.of_kes {
            counter.inc();
        }
    }
}

impl Observer for Metrics {
    fn began(&self, dialect: &'static str) {
        self.requests.in_flight.inc();
        if dialect == KES {
            self.of_kes.active.inc();
        }
    }

    fn answered<'a>(&'a self, told: &'a Answered<'a>) -> Outcome<'a> {
        self.told(told);
        ready(Ok(())).left_future()
    }

    fn abandoned(&self, told: &Answered<'_>) {
        self.told(told);
    }
}
