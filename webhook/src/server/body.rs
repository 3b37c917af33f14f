//! Bodies in bounded memory.

use std::sync::Arc;

use axum::body::Body;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::admission::{Refusal, uid_of};

/// How much of a body that is too long is read and thrown away, so that its sender gets to see the answer.
const THROWN_AWAY: usize = 32 << 20;

/// Reads a body of at most `limit` bytes. Its memory is paid for, a permit each KiB, while it arrives and as long as the
/// permit is kept.
pub(super) async fn read(
    mut body: Body,
    limit: usize,
    deadline: Instant,
    budget: &Arc<Semaphore>,
) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Refusal> {
    let refuse = |status, head: &[u8], message| Err(Refusal::new(status, uid_of(head), message));
    let mut bytes = Vec::new();
    let mut permit: Option<OwnedSemaphorePermit> = None;
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Ok(None) => return Ok((bytes, permit)),
            Err(_) => return refuse(408, &bytes, "the body took too long to arrive".to_owned()),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                return refuse(400, &bytes, format!("the body ended early: {error}"));
            }
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > limit {
            let head = bytes[..bytes.len().min(1024)].to_vec();
            drop((bytes, permit));
            let _in_time = timeout_at(deadline, throw_away(body)).await;
            return refuse(413, &head, format!("a review has at most {limit} bytes"));
        }
        let wanted = (bytes.len() + data.len()).div_ceil(1 << 10);
        let held = permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if let Some(more) = wanted.checked_sub(held).filter(|more| *more > 0) {
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            let more = timeout_at(deadline, Arc::clone(budget).acquire_many_owned(more)).await;
            let Ok(Ok(more)) = more else {
                return refuse(503, &bytes, "too many reviews at once".to_owned());
            };
            match permit.as_mut() {
                Some(permit) => permit.merge(more),
                None => permit = Some(more),
            }
        }
        bytes.extend_from_slice(&data);
    }
}

async fn throw_away(mut body: Body) {
    let mut thrown = 0;
    while let Some(Ok(frame)) = body.frame().await {
        thrown += frame.data_ref().map_or(0, bytes::Bytes::len);
        if thrown > THROWN_AWAY {
            return;
        }
    }
}
