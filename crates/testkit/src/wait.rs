//! Waits for what a cloud does in the background.
use crate::Answer;
use std::time::Duration;

/// Longest wait for a level.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks until the answer is as wanted, and gives it; panics with the last answer when it takes too long.
pub async fn until<F, Fut>(what: &str, mut ask: F, is: impl Fn(&Answer) -> bool) -> Answer
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Answer>,
{
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let mut last = None;
    let reached = async {
        loop {
            ticks.tick().await;
            let answer = ask().await;
            if is(&answer) {
                return answer;
            }
            last = Some(answer);
        }
    };
    let reached = tokio::time::timeout(PATIENCE, reached).await.ok();
    reached.unwrap_or_else(|| panic!("not in time: {what}; last: {:?}", last.map(|a| a.body)))
}

/// Looks until it is so; panics when it takes too long.
pub async fn holds(what: &str, is: impl Fn() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let reached = async {
        while !is() {
            ticks.tick().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, reached).await.is_ok(), "not in time: {what}");
}
