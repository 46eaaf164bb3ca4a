//! Serves the document to every caller: it holds nothing that the source does not.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Response};
use keyway_http::{
    Call, Group, Listed, Mount, Page, PageError, RouteEntry, RouteError, listed, routes_on,
};

use crate::{DOCUMENT, PATH};

/// How often one process sends the document where its operator pays for each byte that is sent. Anyone may ask for it,
/// and it is a hundred times as long as other answers.
pub struct SendingLimit {
    /// Time since an arbitrary start that never runs backwards.
    elapsed: Box<dyn Fn() -> Duration + Send + Sync>,
    /// When all of [`SendingLimit::AT_ONCE`] may be sent again.
    full_at: Mutex<Duration>,
}

impl SendingLimit {
    /// How many times the document may be sent at once after a pause.
    pub const AT_ONCE: u32 = 5;
    /// How long after one sending another is allowed.
    pub const EVERY: Duration = Duration::from_secs(60);

    /// Counts by this time, which begins anywhere and never runs backwards.
    pub fn by(elapsed: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self {
            elapsed: Box::new(elapsed),
            full_at: Mutex::new(Duration::ZERO),
        }
    }

    /// Counts one sending, or says how long none is allowed.
    fn admit(&self) -> Result<(), Duration> {
        let now = (self.elapsed)();
        // The value is complete at any time, so a poisoned lock harms nothing.
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let next = (*full_at).max(now) + Self::EVERY;
        let latest = now + Self::EVERY * Self::AT_ONCE;
        if next > latest {
            return Err(next - latest);
        }
        *full_at = next;
        Ok(())
    }
}

/// The document's own mount, to be put beside those of the dialects. Without a limit, the document is sent to everyone
/// who asks.
///
/// # Errors
/// None: one path by two methods can always be told apart.
pub fn mount(limit: Option<SendingLimit>) -> Result<Mount<Page>, RouteError> {
    let routes = routes_on(entries(), &Arc::new(limit));
    Mount::page("openapi", &[PATH], |_| true, routes)
}

fn entries() -> Vec<RouteEntry<Page, Option<SendingLimit>>> {
    let entry = |method| RouteEntry::new(method, "", 0, (), document);
    vec![entry(Method::GET), entry(Method::HEAD)]
}

/// Every route, below [`PATH`].
pub fn inventory() -> Vec<Listed> {
    listed(Group::Document, &entries())
}

async fn document(
    limit: Arc<Option<SendingLimit>>,
    call: Call<Page>,
) -> Result<Response<Bytes>, PageError> {
    if call.request.method == Method::GET
        && let Some(limit) = limit.as_ref()
        && let Err(wait) = limit.admit()
    {
        let seconds = wait.as_millis().div_ceil(1000);
        return Err(PageError::TooOften(
            u32::try_from(seconds).unwrap_or(u32::MAX),
        ));
    }
    Ok(answer(&call))
}

fn answer(call: &Call<Page>) -> Response<Bytes> {
    let mut response = Response::new(if call.request.method == Method::HEAD {
        Bytes::new()
    } else {
        Bytes::from_static(DOCUMENT)
    });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=300"),
    );
    headers.insert(CONTENT_LENGTH, HeaderValue::from(DOCUMENT.len()));
    response
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::atomic::{AtomicU64, Ordering};

    use http::header::{ALLOW, RETRY_AFTER};
    use http_body_util::{BodyExt, Full};
    use keyway_http::{Peer, Site};

    use super::*;

    async fn call(method: &str, path: &str) -> Response<Bytes> {
        call_on(&Site::new(1, mount(None).unwrap()), method, path).await
    }

    async fn call_on(site: &Site, method: &str, path: &str) -> Response<Bytes> {
        let body: keyway_http::Body =
            Box::pin(Full::new(Bytes::new()).map_err(|never| match never {}));
        let request = http::Request::builder().method(method).uri(path);
        let peer = Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), false);
        site.respond(request.body(body).unwrap(), peer).await
    }

    #[tokio::test]
    async fn document_is_served_to_unauthenticated_callers() {
        let answer = call("GET", "/openapi.json").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(answer.headers()[CACHE_CONTROL], "public, max-age=300");
        assert_eq!(answer.body(), DOCUMENT);
        let head = call("HEAD", "/openapi.json?x").await;
        assert_eq!(head.status(), 200);
        assert_eq!(head.headers()[CONTENT_LENGTH], DOCUMENT.len().to_string());
        assert!(head.body().is_empty());
    }

    #[tokio::test]
    async fn other_methods_are_405_and_other_paths_404() {
        let answer = call("POST", "/openapi.json").await;
        assert_eq!(answer.status(), 405);
        assert_eq!(answer.headers()[ALLOW], "GET, HEAD");
        for path in ["/openapi.json/", "/openapi.jsonx", "/openapi.json/x"] {
            assert_eq!(call("GET", path).await.status(), 404, "{path}");
        }
    }

    #[tokio::test]
    async fn limit_admits_a_few_at_once_and_then_one_a_minute() {
        let seconds = Arc::new(AtomicU64::new(7));
        let clock = Arc::clone(&seconds);
        let limit = SendingLimit::by(move || Duration::from_secs(clock.load(Ordering::Relaxed)));
        let site = Site::new(1, mount(Some(limit)).unwrap());
        let status = async |method| call_on(&site, method, PATH).await.status();
        for _ in 0..SendingLimit::AT_ONCE {
            assert_eq!(status("GET").await, 200);
        }
        seconds.fetch_add(20, Ordering::Relaxed);
        let refused = call_on(&site, "GET", PATH).await;
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.headers()[RETRY_AFTER], "40");
        assert!(refused.body().is_empty());
        assert_eq!(status("HEAD").await, 200, "HEAD sends no document");
        seconds.fetch_add(40, Ordering::Relaxed);
        assert_eq!(status("GET").await, 200);
        assert_eq!(status("GET").await, 429);
    }
}
