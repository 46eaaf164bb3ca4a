use std::time::{Duration, Instant};

use crate::Answer;

/// Checks a process's staleness: no use of the old state begins at or after `limit`, and after the first use of the new
/// state, none of the old one follows.
pub async fn obeys(limit: Instant, mut uses_the_old_state: impl AsyncFnMut() -> bool) {
    let mut obeyed = false;
    loop {
        let began = now();
        let old = uses_the_old_state().await;
        assert!(
            !old || began < limit,
            "the old state was used after the TTL"
        );
        assert!(!old || !obeyed, "the old state came back");
        obeyed = !old;
        if began >= limit {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether the key still serves. A refusal must be for the key's state.
pub fn serves(answer: &Answer) -> bool {
    if answer.status != 200 {
        assert_eq!(answer.refusal(), (409, "InvalidKeyState".to_owned()));
    }
    answer.status == 200
}

#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
fn now() -> Instant {
    Instant::now()
}
