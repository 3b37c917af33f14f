//! Metrics that cost something: however often somebody scrapes, they are collected once in a while, and who goes away in the
//! middle of a scrape leaves nothing to do behind.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use crate::admin::Collect;

/// What was collected, and when that began.
type Collected = Option<(Instant, Result<String, fmt::Error>)>;

/// Gives metrics that are at most so old; and the work of collecting them, for as long as the program runs.
pub fn cached(collect: Collect, age: Duration) -> (Collect, impl Future<Output = ()> + Send) {
    let (tell, collected) = watch::channel(Collected::None);
    let wanted = Arc::new(Notify::new());
    let keep = keep(collect, age, Arc::clone(&wanted), tell);
    let cached: Collect = Arc::new(move || {
        let (wanted, mut collected) = (Arc::clone(&wanted), collected.clone());
        let asked = Instant::now();
        Box::pin(async move {
            let is_new = |it: &Collected| it.as_ref().is_some_and(|(at, _)| *at + age > asked);
            if !is_new(&collected.borrow()) {
                wanted.notify_one();
            }
            let it = collected.wait_for(is_new).await.map_err(|_| fmt::Error)?;
            it.as_ref()
                .map_or(Err(fmt::Error), |(_, text)| text.clone())
        })
    });
    (cached, keep)
}

async fn keep(
    collect: Collect,
    age: Duration,
    wanted: Arc<Notify>,
    tell: watch::Sender<Collected>,
) {
    loop {
        wanted.notified().await;
        let begun = Instant::now();
        let text = collect().await;
        tell.send_replace(Some((begun, text)));
        sleep_until(begun + age).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::{sleep, timeout};

    use super::*;

    const AGE: Duration = Duration::from_secs(1);
    /// How long the slow thread takes that knows.
    const WORK: Duration = Duration::from_millis(300);

    /// Counts how often somebody had to collect.
    fn counting() -> (Collect, Arc<AtomicU32>) {
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let collect: Collect = Arc::new(move || {
            let nth = counted.fetch_add(1, Ordering::Relaxed) + 1;
            Box::pin(async move {
                sleep(WORK).await;
                Ok(nth.to_string())
            })
        });
        (collect, count)
    }

    #[tokio::test(start_paused = true)]
    async fn thousands_of_scrapes_are_one_collection_a_second_and_none_is_older() {
        let (collect, count) = counting();
        let (cached, keep) = cached(collect, AGE);
        tokio::spawn(keep);
        let begun = Instant::now();
        for _ in 0..2_000 {
            let asked = Instant::now();
            cached().await.expect("metrics");
            assert!(asked.elapsed() <= AGE + WORK);
            sleep(Duration::from_millis(5)).await;
        }
        let seconds = u32::try_from(begun.elapsed().as_secs()).expect("a short time");
        let collected = count.load(Ordering::Relaxed);
        assert!(collected <= seconds + 1, "{collected} in {seconds} s");

        // After a pause it is not what was true before.
        sleep(AGE * 10).await;
        assert_eq!(cached().await, Ok((collected + 1).to_string()));
        assert_eq!(cached().await, Ok((collected + 1).to_string()));
    }

    #[tokio::test(start_paused = true)]
    async fn scrapers_that_go_away_leave_no_work_behind() {
        let (collect, count) = counting();
        let (cached, keep) = cached(collect, AGE);
        tokio::spawn(keep);
        for _ in 0..1_000 {
            let _gone_away = timeout(Duration::from_millis(1), cached()).await;
        }
        sleep(AGE * 5).await;
        let collected = count.load(Ordering::Relaxed);
        assert!(collected <= 3, "{collected} in a second");
    }
}
