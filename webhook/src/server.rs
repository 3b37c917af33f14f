//! The admission server: reviews over TLS, bounded in size, time and number.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
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

/// What a server may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one review. The API server itself takes requests of at most 3 MiB.
    pub body: usize,
    /// Bytes of all reviews being read or answered; more wait. Nearly all are small, and those have a quarter to themselves.
    pub bodies: usize,
    /// For a review to arrive. The API server gives up after the webhook's `timeoutSeconds`.
    pub time: Duration,
    /// Open connections; more wait.
    pub connections: usize,
    /// From a connection's start to its first request.
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

/// What answers reviews.
#[derive(Debug)]
pub struct App {
    settings: Settings,
    world: Arc<World>,
    metrics: Arc<Metrics>,
    limits: Limits,
    budget: Budget,
}

impl App {
    /// Decides by `settings` and by what `world` knows at the moment.
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

    /// The paths that are served. Whatever else is asked for gets a review, too.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new().fallback(serve).with_state(self)
    }
}

#[derive(Clone, Copy)]
enum Path {
    Mutate,
    Validate,
}

impl Path {
    const fn name(self) -> &'static str {
        match self {
            Self::Mutate => "mutate",
            Self::Validate => "validate",
        }
    }
}

async fn serve(State(app): State<Arc<App>>, request: HttpRequest) -> Response {
    let path = match request.uri().path() {
        "/mutate" => Ok(Path::Mutate),
        "/validate" => Ok(Path::Validate),
        _ => Err("other"),
    };
    let name = path.map_or_else(|name| name, Path::name);
    let begun = Instant::now();
    let answer = app.answer(path.ok(), request).await;
    let answer = answer.unwrap_or_else(Answer::from);
    app.metrics.answered(name, answer.word, begun.elapsed());
    response(&answer)
}

impl App {
    async fn answer(&self, path: Option<Path>, request: HttpRequest) -> Result<Answer, Refusal> {
        let (head, body) = request.into_parts();
        let refused = match (&path, &head.method) {
            (None, _) => Some((404, "expected /mutate or /validate".to_owned())),
            (_, &Method::POST) => None,
            (_, method) => Some((405, format!("expected POST, found {method}"))),
        };
        let refused = refused.or_else(|| {
            let kind = head.headers.get(header::CONTENT_TYPE);
            (!is_json(kind)).then(|| {
                let found = kind.map_or("nothing".into(), |kind| format!("{kind:?}"));
                (415, format!("expected application/json, found {found}"))
            })
        });
        let deadline = time::Instant::now() + self.limits.time;
        let read = body::read(body, self.limits.body, deadline, &self.budget).await;
        let (bytes, _permit) = match (read, refused) {
            (Ok((bytes, _)), Some((status, message))) => {
                let uid = crate::admission::uid_of(&bytes);
                return Err(Refusal::new(status, uid, message));
            }
            (Err(refusal), Some((status, message))) => {
                return Err(Refusal::new(status, refusal.uid, message));
            }
            (read, None) => read?,
        };
        let review = Request::parse(&bytes)?;
        drop(bytes);
        Ok(match path {
            Some(Path::Mutate) if review.creates_a_pod() => {
                let namespace = self.world.namespace(review.namespace()).await;
                review.mutate(namespace.as_deref(), &self.world.cluster(), &self.settings)
            }
            Some(Path::Mutate) => review.mutate(None, &self.world.cluster(), &self.settings),
            Some(Path::Validate) | None => review.validate(),
        })
    }
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
