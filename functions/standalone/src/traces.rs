//! Sends spans of requests to the collector that OpenTelemetry's variables name, with the feature `otlp`.

use keyway_deployment_assembly::environment;

/// Nothing is sent unless one of them is set.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

fn wanted() -> anyhow::Result<bool> {
    if environment("OTEL_SDK_DISABLED")?.is_some_and(|off| off.eq_ignore_ascii_case("true")) {
        return Ok(false);
    }
    for name in ENDPOINTS {
        if environment(name)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(feature = "otlp")]
mod with {
    use std::sync::Arc;

    use anyhow::Context;
    use keyway_deployment_assembly::environment;
    use keyway_domain::ports::Clock;
    use keyway_http::{Site, Stopwatch};
    use keyway_traces::Traces;

    /// Makes spans, if a collector is configured.
    pub(crate) struct Spans(Option<Arc<Traces>>);

    impl Spans {
        /// Starts as the variables say.
        pub(crate) fn start(clock: &Arc<dyn Clock>) -> anyhow::Result<Self> {
            if !super::wanted()? {
                return Ok(Self(None));
            }
            let name = environment("OTEL_SERVICE_NAME")?;
            let name = name.as_ref().map(|name| name.as_str());
            let traces = Traces::start(name, env!("CARGO_PKG_VERSION"), Arc::clone(clock))
                .context("traces")?;
            Ok(Self(Some(Arc::new(traces))))
        }

        /// Makes a span for each request of this site.
        pub(crate) fn observer(&self, site: Site, stopwatch: &Stopwatch) -> Site {
            match &self.0 {
                Some(traces) => site.observed_by(Arc::clone(traces) as _, Arc::clone(stopwatch)),
                None => site,
            }
        }

        /// Sends the last spans.
        pub(crate) async fn finish(&self) {
            if let Some(traces) = &self.0 {
                traces.finish().await;
            }
        }
    }
}

#[cfg(not(feature = "otlp"))]
mod without {
    use std::sync::Arc;

    use keyway_domain::ports::Clock;
    use keyway_http::{Site, Stopwatch};

    /// Makes no spans.
    pub(crate) struct Spans;

    impl Spans {
        /// Warns if a collector is configured.
        pub(crate) fn start(_: &Arc<dyn Clock>) -> anyhow::Result<Self> {
            if super::wanted()? {
                tracing::warn!(
                    "a collector for traces is set, but this keyway was built without the feature otlp: none are sent"
                );
            }
            Ok(Self)
        }

        /// Returns the site unchanged.
        pub(crate) fn observer(&self, site: Site, _: &Stopwatch) -> Site {
            site
        }

        /// There are no spans to send.
        pub(crate) async fn finish(&self) {}
    }
}

#[cfg(feature = "otlp")]
pub(crate) use with::Spans;
#[cfg(not(feature = "otlp"))]
pub(crate) use without::Spans;
