//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

use anyhow::Context as _;

/// Far beyond what anything here takes on a busy machine; reached only when it will never be so.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks until `look` is `Ok`, and gives what it found.
///
/// # Errors
/// When it is not so within a minute: `what` was awaited, and what the last look said.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let begin = Instant::now();
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(last) if begin.elapsed() > PATIENCE => {
                return Err(last).with_context(|| format!("waited {} s in vain until {what}", PATIENCE.as_secs()));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
