//! The admission server: reviews over TLS, bounded in size, time and number.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use tokio::time;

use crate::admission::{Answer, Refusal, Request};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::world::World;

mod body;
pub mod listen;

use body::Budget;

/// Limits of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one review. The API server itself takes requests of at most 3 MiB.
    pub body: usize,
    /// Bytes of all reviews that are being read or answered; further reviews wait. A quarter is reserved for small reviews.
    pub bodies: usize,
    /// Time for a review to arrive. The API server gives up after the webhook's `timeoutSeconds`.
    pub time: Duration,
    /// Open connections. For a further one the oldest ends.
    pub connections: usize,
    /// Time from a connection's start to its first request.
    pub handshake: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 4 << 20,
            bodies: 16 << 20,
            time: Duration::from_secs(4),
            connections: 256,
            handshake: Duration::from_secs(10),
        }
    }
}

/// Answers reviews.
#[derive(Debug)]
pub struct App {
    settings: Settings,
    world: Arc<World>,
    metrics: Arc<Metrics>,
    limits: Limits,
    budget: Budget,
}

impl App {
    /// An app that decides by `settings` and by the present state of `world`.
    pub fn new(
        settings: Settings,
        world: Arc<World>,
        metrics: Arc<Metrics>,
        limits: Limits,
    ) -> Self {
        Self {
            settings,
            world,
            metrics,
            limits,
            budget: Budget::new(limits.bodies),
        }
    }

    /// Serves every path: a request for another path than ours gets a review, too.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new().fallback(serve).with_state(self)
    }
}

async fn serve(State(app): State<Arc<App>>, request: HttpRequest) -> Response {
    let path = match request.uri().path() {
        "/mutate" => "mutate",
        _ => "other",
    };
    let begun = Instant::now();
    let answer = app.answer(request).await.unwrap_or_else(Answer::from);
    app.metrics.answered(path, answer.word, begun.elapsed());
    response(&answer)
}

impl App {
    async fn answer(&self, request: HttpRequest) -> Result<Answer, Refusal> {
        let (head, body) = request.into_parts();
        let refused = refused(&head);
        let deadline = time::Instant::now() + self.limits.time;
        // A client may see no answer before all of its body is read.
        let read = body::read(body, self.limits.body, deadline, &self.budget).await;
        let (bytes, _permit) = match refused {
            Some(refusal) => return Err(refusal),
            None => read?,
        };
        let review = Request::parse(&bytes)?;
        drop(bytes);
        let namespace = if review.creates_a_pod() {
            self.world.namespace(review.namespace()).await
        } else {
            None
        };
        Ok(review.mutate(namespace.as_deref(), &self.world.cluster(), &self.settings))
    }
}

/// Why a request is no review, by its first lines.
fn refused(head: &Parts) -> Option<Refusal> {
    if head.uri.path() != "/mutate" {
        return Some(Refusal::new(404, "expected /mutate".to_owned()));
    }
    if head.method != Method::POST {
        let message = format!("expected POST, found {}", head.method);
        return Some(Refusal::new(405, message));
    }
    let kind = head.headers.get(header::CONTENT_TYPE);
    if is_json(kind) {
        return None;
    }
    let found = kind.map_or("nothing".into(), |kind| format!("{kind:?}"));
    let message = format!("expected application/json, found {found}");
    Some(Refusal::new(415, message))
}

fn is_json(kind: Option<&HeaderValue>) -> bool {
    let kind = kind.and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn response(answer: &Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body()));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
