//! Announcements of changes, by `LISTEN` and `NOTIFY`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keyway_domain::ports::{ChangeFeed, Kind, Obey, TableChange};
use tokio::time::{sleep, timeout};

use crate::PostgresTable;
use crate::connect::{Announced, Server};
use crate::failure;
use crate::records::CHANNEL;

/// How often the connection is tried, and for how long. A connection that has silently ended announces nothing.
const PING: Duration = Duration::from_secs(2);
/// The pause before another connection.
const RECONNECT: Duration = Duration::from_millis(250);

#[async_trait]
impl ChangeFeed for PostgresTable {
    async fn follow(&self, obey: Obey) {
        let mut tells = true;
        loop {
            let ended = listen(self.server(), &obey).await;
            // The reason is logged once, until there is a connection again.
            if tells || ended.had_listened {
                tracing::warn!(
                    why = ended.why,
                    "other processes' changes are not announced at present; they take effect after the state TTL"
                );
            }
            tells = false;
            sleep(RECONNECT).await;
        }
    }
}

/// Why a connection announces nothing more.
struct Ended {
    had_listened: bool,
    why: String,
}

/// Reports announcements until the connection ends.
async fn listen(server: &Server, obey: &Obey) -> Ended {
    let announced = || -> Announced {
        let obey = Arc::clone(obey);
        Box::new(move |payload| obey(change(payload)))
    };
    let never = |why: String| Ended {
        had_listened: false,
        why,
    };
    let session = match server.connect(Some(&announced)).await {
        Ok((session, _)) => session,
        Err(error) => return never(error.to_string()),
    };
    let sql = format!("LISTEN {CHANNEL}");
    match timeout(PING, session.client().batch_execute(&sql)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return never(failure::told(&error)),
        Err(_) => return never("the server does not answer".to_owned()),
    }
    tracing::info!(
        server = server.name(),
        "other processes' changes are announced"
    );
    // What was announced before is missed.
    obey(TableChange::Any);
    loop {
        sleep(PING).await;
        let why = match timeout(PING, session.client().batch_execute("")).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => failure::told(&error),
            Err(_) => "the server does not answer".to_owned(),
        };
        return Ended {
            had_listened: true,
            why,
        };
    }
}

/// The change that a payload announces. One that is not understood may be of a newer release, and may mean anything.
fn change(payload: &str) -> TableChange {
    let parsed = payload.split_once('/').and_then(|(kind, id)| {
        let id = String::from_utf8(unhex(id)?).ok()?;
        Some(TableChange::Record(Kind::parse(kind)?, id))
    });
    parsed.unwrap_or(TableChange::Any)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok();
    pairs.iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_names_one_record_and_anything_else_means_all() {
        assert_eq!(
            change("key/6bc3a9"),
            TableChange::Record(Kind::Key, "ké".to_owned())
        );
        assert_eq!(
            change("alias/"),
            TableChange::Record(Kind::Alias, String::new())
        );
        for other in ["", "key", "new-kind/6b", "key/6", "key/zz", "key/ff"] {
            assert_eq!(change(other), TableChange::Any, "{other}");
        }
    }
}
