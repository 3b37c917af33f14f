//! Reads bodies into bounded memory.

use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody as _};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::admission::Refusal;

/// How much of a body that is too long is read and dropped, so that its sender sees the answer.
const THROWN_AWAY: usize = 32 << 20;

/// The largest small body. Small bodies have memory of their own, so that a few large ones do not delay them.
const SMALL: usize = 128 << 10;

/// Memory for bodies: one permit for each KiB.
#[derive(Debug)]
pub(super) struct Budget {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    most: usize,
}

impl Budget {
    /// A budget of this many bytes, a quarter of them for small bodies.
    pub(super) fn new(bytes: usize) -> Self {
        let permits = bytes >> 10;
        let most = permits - permits / 4;
        Self {
            small: Arc::new(Semaphore::new(permits / 4)),
            large: Arc::new(Semaphore::new(most)),
            most,
        }
    }

    /// Permits for a whole body, or none: bodies that each hold a part of what they need would block each other for ever.
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

/// Reads a body of at most `limit` bytes. The permit covers its memory. A body of unknown length is assumed to have `limit`
/// bytes.
pub(super) async fn read(
    mut body: Body,
    limit: usize,
    deadline: Instant,
    budget: &Budget,
) -> Result<(Vec<u8>, OwnedSemaphorePermit), Refusal> {
    let length = body.size_hint().exact();
    let length = length.map_or(limit, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if length > limit {
        return Err(too_long(body, limit, deadline).await);
    }
    // No memory is reserved for a body of which nothing arrives.
    let mut piece = next(&mut body, deadline).await?;
    let Some(permit) = budget.room_for(length, deadline).await else {
        return Err(Refusal::new(503, "too many reviews at once".to_owned()));
    };
    let mut bytes = Vec::new();
    while let Some(data) = piece {
        if bytes.len() + data.len() > limit {
            drop((data, bytes, permit));
            return Err(too_long(body, limit, deadline).await);
        }
        bytes.reserve_exact(length.saturating_sub(bytes.len()));
        bytes.extend_from_slice(&data);
        piece = next(&mut body, deadline).await?;
    }
    Ok((bytes, permit))
}

/// The refusal of a body that is too long. Its sender sees the answer only when the rest has been read.
async fn too_long(body: Body, limit: usize, deadline: Instant) -> Refusal {
    let _in_time = timeout_at(deadline, throw_away(body)).await;
    Refusal::new(413, format!("a review has at most {limit} bytes"))
}

/// The next piece of a body, or why there is none.
async fn next(body: &mut Body, deadline: Instant) -> Result<Option<Bytes>, Refusal> {
    loop {
        match timeout_at(deadline, body.frame()).await {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => return Ok(Some(data)),
                Err(_trailers) => {}
            },
            Ok(Some(Err(error))) => {
                let message = format!("the body ended early: {error}");
                return Err(Refusal::new(400, message));
            }
            Err(_) => {
                let message = "the body took too long to arrive".to_owned();
                return Err(Refusal::new(408, message));
            }
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
            assert_eq!(refused, Err(Refusal::new(503, message)));
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
            let message = "a review has at most 1048576 bytes".to_owned();
            assert_eq!(refused.map(drop), Err(Refusal::new(413, message)));
        }
    }
}
