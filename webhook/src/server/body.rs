//! Reads bodies into bounded memory.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot::{self, Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use crate::admission::Refusal;

/// How much of a body that is too long is read and dropped, so that its sender sees the answer.
const THROWN_AWAY: usize = 32 << 20;

/// The largest small body. Small bodies have memory of their own, so that a few large ones do not delay them.
const SMALL: usize = 128 << 10;

/// How long a small body may take to arrive where another waits for its room, and a large one. An API server sends either in
/// milliseconds; who takes longer may be somebody who stops in the middle on purpose.
const SLOW: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// Between looks for such.
const LOOK: Duration = Duration::from_millis(10);

/// Memory for bodies.
#[derive(Debug)]
pub(super) struct Budget {
    small: Pool,
    large: Pool,
}

/// Memory for bodies of one kind: one permit for each KiB.
#[derive(Debug)]
struct Pool {
    room: Arc<Semaphore>,
    most: usize,
    /// Those of which more is awaited, and since when. Each is ended by dropping its sender.
    reading: Mutex<Vec<(Instant, Sender<()>)>>,
    slow: Duration,
}

impl Pool {
    fn new(permits: usize, slow: Duration) -> Self {
        Self {
            room: Arc::new(Semaphore::new(permits)),
            most: permits,
            reading: Mutex::default(),
            slow,
        }
    }

    /// So many permits, at most all that there are. While there are too few, bodies that are slow are ended.
    async fn room_for(&self, permits: usize, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(permits.min(self.most)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(permits);
        let end_slow_ones = async {
            loop {
                sleep(LOOK).await;
                self.change(|reading| reading.retain(|(since, _)| since.elapsed() < self.slow));
            }
        };
        let room = async {
            tokio::select! {
                biased;
                room = room => room.ok(),
                () = end_slow_ones => None,
            }
        };
        timeout_at(deadline, room).await.ok()?
    }

    /// Notes a body of which more is awaited; it is being read since then. What is returned is done when it has to make room.
    fn awaits(&self, since: Instant) -> Receiver<()> {
        let (end, ended) = oneshot::channel();
        self.change(|reading| reading.push((since, end)));
        ended
    }

    fn change(&self, change: impl FnOnce(&mut Vec<(Instant, Sender<()>)>)) {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        reading.retain(|(_, reader)| !reader.is_closed());
        change(&mut reading);
    }
}

impl Budget {
    /// A budget of this many bytes, a quarter of them for small bodies.
    pub(super) fn new(bytes: usize) -> Self {
        let permits = bytes >> 10;
        let [small, large] = SLOW;
        Self {
            small: Pool::new(permits / 4, small),
            large: Pool::new(permits - permits / 4, large),
        }
    }

    const fn pool(&self, bytes: usize) -> &Pool {
        if bytes <= SMALL {
            &self.small
        } else {
            &self.large
        }
    }
}

/// Reads a body of at most `limit` bytes. The permit covers its memory. A body of unknown length is assumed to have `limit`
/// bytes.
pub(super) async fn read(
    mut body: Body,
    limit: usize,
    deadline: Instant,
    budget: &Budget,
) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Refusal> {
    let begun = Instant::now();
    let length = body.size_hint().exact();
    let length = length.map_or(limit, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if length > limit {
        return Err(too_long(body, limit, deadline).await);
    }
    // No memory is reserved for a body of which nothing arrives.
    let mut piece = next(&mut body, deadline).await?;
    let crowded = || Refusal::new(503, "too many reviews at once".to_owned());
    let pool = budget.pool(length);
    let is_small = length <= SMALL;
    let (mut held, mut since) = (None, begun);
    if !is_small {
        // Room for the whole, or none: if each held a part of what it needs, they would block each other.
        held = Some(
            pool.room_for(kib(length), deadline)
                .await
                .ok_or_else(crowded)?,
        );
        since = Instant::now();
    }
    let mut bytes = Vec::with_capacity(if is_small { 0 } else { length });
    while let Some(data) = piece {
        let arrived = bytes.len() + data.len();
        if arrived > limit {
            drop((data, bytes, held));
            return Err(too_long(body, limit, deadline).await);
        }
        let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = kib(arrived).min(pool.most);
        if wanted > has {
            // Who waits for room is not slow.
            let more = pool.room_for(wanted - has, deadline).await;
            let more = more.ok_or_else(crowded)?;
            match &mut held {
                None => held = Some(more),
                Some(held) => held.merge(more),
            }
        }
        bytes.extend_from_slice(&data);
        let makes_room = pool.awaits(since);
        piece = tokio::select! {
            biased;
            piece = next(&mut body, deadline) => piece?,
            _ = makes_room => return Err(crowded()),
        };
    }
    Ok((bytes, held))
}

const fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1 << 10)
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
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures_util::StreamExt as _;
    use hyper::body::{Frame, SizeHint};

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
            let pool = budget.pool(text.len());
            while let Some(room) = pool.room_for(kib(text.len()), Instant::now()).await {
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
            sleep(Duration::from_millis(1)).await;
            Ok::<_, std::convert::Infallible>(piece)
        });
        Body::from_stream(pieces)
    }

    /// Somebody says how long his bodies are, sends their beginning, and nothing more.
    #[tokio::test(start_paused = true)]
    async fn bodies_that_stop_in_the_middle_hold_up_no_other_for_long() {
        let budget = Arc::new(Budget::new(2 * LIMIT));
        for (bytes, others, most) in [(SMALL, 1000, 500), (LIMIT / 2, 5, 1100)] {
            let mut stalled = tokio::task::JoinSet::new();
            for _ in 0..others {
                let budget = Arc::clone(&budget);
                let first = Some(Bytes::from(vec![b'{'; 16 << 10]));
                let body = Body::new(Stalls { first, bytes });
                stalled.spawn(async move { read(body, LIMIT, soon(), &budget).await.map(drop) });
            }
            sleep(Duration::from_millis(20)).await;
            let begun = Instant::now();
            let honest = read(Body::from(review(bytes - 64)), LIMIT, soon(), &budget);
            assert!(honest.await.is_ok(), "{bytes} bytes");
            let took = begun.elapsed();
            assert!(
                took <= Duration::from_millis(most),
                "{bytes} bytes: {took:?}"
            );
            stalled.shutdown().await;
        }
    }

    /// A body of so many bytes of which the first few arrive, and no other.
    struct Stalls {
        first: Option<Bytes>,
        bytes: usize,
    }

    impl hyper::body::Body for Stalls {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            match self.first.take() {
                Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
                None => Poll::Pending,
            }
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(u64::try_from(self.bytes).expect("a size"))
        }
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
