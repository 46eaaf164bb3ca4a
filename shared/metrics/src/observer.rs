//! Counts and times every request.

use futures_util::future::{FutureExt, ready};
use keyway_http::{Answered, Observer, Outcome};

use crate::Metrics;

/// The name of KES's dialect.
const KES: &str = "kes";

/// The outcomes of answers.
pub(crate) const SUCCESS: &str = "success";
pub(crate) const REFUSED: &str = "refused";
pub(crate) const FAILED: &str = "failed";

impl Metrics {
    fn told(&self, told: &Answered<'_>) {
        let (dialect, operation) = (told.dialect, told.operation.name);
        let class = told.error.unwrap_or("success");
        let seconds = told.elapsed.as_secs_f64();
        self.requests
            .answered
            .with_label_values(&[dialect, operation, class])
            .inc();
        self.requests
            .seconds
            .with_label_values(&[dialect, operation])
            .observe(seconds);
        let outcome = match told.status.as_u16() {
            ..400 => SUCCESS,
            400..500 => REFUSED,
            _ => FAILED,
        };
        self.requests.outcomes.with_label_values(&[outcome]).inc();
        self.requests.in_flight.dec();
        if dialect == KES {
            self.of_kes.active.dec();
            self.of_kes.answered(told.status.as_u16(), seconds);
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
