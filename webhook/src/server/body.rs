//! Bodies in bounded memory.

use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody as _};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::admission::{Refusal, uid_of};

/// How much of a body that is too long is read and thrown away, so that its sender gets to see the answer.
const THROWN_AWAY: usize = 32 << 20;

/// Nearly all reviews are smaller. They have memory of their own, so that a few large ones do not hold them up.
const SMALL: usize = 128 << 10;

/// Memory for bodies, a permit each KiB.
#[derive(Debug)]
pub(super) struct Budget {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    most: usize,
}

impl Budget {
    /// So many bytes in all, a quarter of them for small bodies.
    pub(super) fn new(bytes: usize) -> Self {
        let permits = bytes >> 10;
        let most = permits - permits / 4;
        Self {
            small: Arc::new(Semaphore::new(permits / 4)),
            large: Arc::new(Semaphore::new(most)),
            most,
        }
    }

    /// All that a body will take, or nothing: of those that each had a part none would come to an end.
    async fn room_for(&self, bytes: usize, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        let budget = if bytes <= SMALL {
            &self.small
        } else {
            &self.large
        };
        let permits = bytes.div_ceil(1 << 10).min(self.most);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let room = Arc::clone(budget).acquire_many_owned(permits);
        timeout_at(deadline, room).await.ok()?.ok()
    }
}

/// Reads a body of at most `limit` bytes. Its memory is paid for as long as the permit is kept. Of one that does not tell its
/// length the longest is assumed.
pub(super) async fn read(
    mut body: Body,
    limit: usize,
    deadline: Instant,
    budget: &Budget,
) -> Result<(Vec<u8>, OwnedSemaphorePermit), Refusal> {
    let refuse = |status, head: &[u8], message| Err(Refusal::new(status, uid_of(head), message));
    let told = body.size_hint().exact();
    let told = told.map_or(limit, |told| usize::try_from(told).unwrap_or(usize::MAX));
    // Whoever is refused gets his uid back, which is in here.
    let mut head = Vec::new();
    while head.len() < 1024 {
        match next(&mut body, deadline).await {
            Ok(Some(data)) => head.extend_from_slice(&data),
            Ok(None) => break,
            Err((status, message)) => return refuse(status, &head, message),
        }
    }
    let too_long = || format!("a review has at most {limit} bytes");
    if told.max(head.len()) > limit {
        let _in_time = timeout_at(deadline, throw_away(body)).await;
        return refuse(413, &head, too_long());
    }
    let Some(permit) = budget.room_for(told, deadline).await else {
        return refuse(503, &head, "too many reviews at once".to_owned());
    };
    let mut bytes = head;
    loop {
        match next(&mut body, deadline).await {
            Ok(None) => return Ok((bytes, permit)),
            Err((status, message)) => return refuse(status, &bytes, message),
            Ok(Some(data)) if bytes.len() + data.len() > limit => {
                bytes.truncate(1024);
                drop((data, permit));
                let _in_time = timeout_at(deadline, throw_away(body)).await;
                return refuse(413, &bytes, too_long());
            }
            Ok(Some(data)) => {
                bytes.reserve_exact(told.saturating_sub(bytes.len()));
                bytes.extend_from_slice(&data);
            }
        }
    }
}

/// The next piece of a body, or why there is none.
async fn next(body: &mut Body, deadline: Instant) -> Result<Option<Bytes>, (u16, String)> {
    loop {
        match timeout_at(deadline, body.frame()).await {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => return Ok(Some(data)),
                Err(_trailers) => {}
            },
            Ok(Some(Err(error))) => return Err((400, format!("the body ended early: {error}"))),
            Err(_) => return Err((408, "the body took too long to arrive".to_owned())),
        }
    }
}

async fn throw_away(mut body: Body) {
    let mut thrown = 0;
    while let Some(Ok(frame)) = body.frame().await {
        thrown += frame.data_ref().map_or(0, Bytes::len);
        if thrown > THROWN_AWAY {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt as _;

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(4)
    }

    fn review(bytes: usize) -> String {
        format!(
            r#"{{"request": {{"uid": "u-1", "filler": "{}"}}}}"#,
            "x".repeat(bytes)
        )
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_in_time_is_told_so_and_the_next_one_finds_it() {
        for bytes in [10, SMALL] {
            let text = review(bytes);
            let read = |budget| async move {
                read(Body::from(review(bytes)), LIMIT, soon(), budget).await
            };
            let budget = Budget::new(4 * LIMIT);
            let mut all = Vec::new();
            while let Some(room) = budget.room_for(text.len(), Instant::now()).await {
                all.push(room);
            }
            let refused = read(&budget).await.map(drop);
            let message = "too many reviews at once".to_owned();
            let wanted = Refusal::new(503, Some("u-1".to_owned()), message);
            assert_eq!(refused, Err(wanted));
            drop(all);
            let (bytes, _) = read(&budget).await.expect("room");
            assert!(bytes == text.as_bytes());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_large_bodies_at_once_are_all_read_and_hold_up_no_small_one() {
        let budget = Arc::new(Budget::new(2 * LIMIT));
        let text = review(LIMIT / 2);
        let mut large = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (body, budget) = (pieces(&text), Arc::clone(&budget));
            large.spawn(async move { read(body, LIMIT, soon(), &budget).await.map(|_| ()) });
        }
        let small = read(
            Body::from(review(1)),
            LIMIT,
            Instant::now() + Duration::from_millis(1),
            &budget,
        );
        assert!(small.await.is_ok());
        while let Some(read) = large.join_next().await {
            assert_eq!(read.expect("it does not panic"), Ok(()));
        }
    }

    /// A body that does not tell its length and arrives bit by bit.
    fn pieces(text: &str) -> Body {
        let pieces: Vec<_> = text
            .as_bytes()
            .chunks(16 << 10)
            .map(Bytes::copy_from_slice)
            .collect();
        let pieces = futures_util::stream::iter(pieces).then(async |piece| {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<_, std::convert::Infallible>(piece)
        });
        Body::from_stream(pieces)
    }

    #[tokio::test]
    async fn what_is_too_long_is_refused_whether_it_says_so_or_not() {
        let text = review(LIMIT);
        for body in [Body::from(text.clone()), pieces(&text)] {
            let refused = read(body, LIMIT, soon(), &Budget::new(4 * LIMIT)).await;
            let refused = refused.map(drop).expect_err("it is too long");
            let Refusal {
                status,
                uid,
                message,
            } = refused;
            assert_eq!((status, uid.as_deref()), (413, Some("u-1")));
            assert_eq!(message, "a review has at most 1048576 bytes");
        }
    }
}
