//! From a request to its answer.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream::Stream;
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::Settings;
use super::chat::ChatRequest;
use super::embeddings::EmbeddingsRequest;
use super::refusal::Refusal;
use super::stream::{self, Pace};

/// The largest body the provider reads: well above what a gateway lets through, so that a limit met in a test is the
/// gateway's.
const BODY_LIMIT: usize = 64 * 1024 * 1024;

type Frames = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

/// An answer's body: whole, or events as they are due.
pub(super) type Body = Either<Full<Bytes>, StreamBody<Frames>>;

/// The provider's state: its settings and how many answers it gave.
pub(super) struct Provider {
    settings: Settings,
    pace: Pace,
    answers: Cell<u64>,
}

/// The paths that exist.
enum Route<'a> {
    Chat,
    Embeddings,
    Models,
    Model(&'a str),
    WhoAmI,
    Health,
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Option<Self> {
        Some(match path {
            "/v1/chat/completions" => Self::Chat,
            "/v1/embeddings" => Self::Embeddings,
            "/v1/models" => Self::Models,
            "/v1/whoami" => Self::WhoAmI,
            "/health" => Self::Health,
            _ => Self::Model(path.strip_prefix("/v1/models/")?),
        })
    }

    /// The method it answers to; none: to every one.
    fn method(&self) -> Option<Method> {
        match self {
            Self::Chat | Self::Embeddings => Some(Method::POST),
            Self::Models | Self::Model(_) | Self::Health => Some(Method::GET),
            Self::WhoAmI => None,
        }
    }
}

impl Provider {
    pub(super) fn new(settings: Settings) -> Self {
        let token = settings
            .tokens_per_second
            .map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.get());
        let pace = Pace {
            first_token_delay: settings.first_token_delay,
            token,
        };
        Self {
            settings,
            pace,
            answers: Cell::new(0),
        }
    }

    /// The answer to a request; a refusal is an answer too.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let number = self.answers.get().wrapping_add(1);
        self.answers.set(number);
        let mut response = match self.route(request, number).await {
            Ok(response) => response,
            Err(refusal) => {
                let mut response = whole(&refusal.body());
                *response.status_mut() = refusal.status();
                response
            }
        };
        let id = HeaderValue::from_str(&format!("req_{}_{number}", self.settings.name));
        if let Ok(id) = id {
            response.headers_mut().insert("x-request-id", id);
        }
        response
    }

    async fn route(
        &self,
        request: Request<Incoming>,
        number: u64,
    ) -> Result<Response<Body>, Refusal> {
        let start = Instant::now();
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let wrong = || (head.method.clone(), path.to_owned());
        let Some(route) = Route::of(path) else {
            let (method, path) = wrong();
            return Err(Refusal::NoSuchPath { method, path });
        };
        if let Some(expected) = route.method()
            && head.method != expected
            && !(head.method == Method::HEAD && expected == Method::GET)
        {
            let (method, path) = wrong();
            let refusal = Refusal::WrongMethod { method, path };
            let mut response = whole(&refusal.body());
            *response.status_mut() = refusal.status();
            if let Ok(allowed) = HeaderValue::from_str(expected.as_str()) {
                response.headers_mut().insert(ALLOW, allowed);
            }
            return Ok(response);
        }
        if !matches!(route, Route::Health) {
            self.check_key(&head.headers)?;
        }
        match route {
            Route::Health => Ok(whole(
                &json!({"status": "ok", "provider": self.settings.name}),
            )),
            Route::Models => {
                let models: Vec<Value> = self
                    .settings
                    .models
                    .iter()
                    .map(|model| self.model(model))
                    .collect();
                Ok(whole(&json!({"object": "list", "data": models})))
            }
            Route::Model(id) => self.check_model(Some(id)).map(|()| whole(&self.model(id))),
            Route::WhoAmI => Ok(whole(&json!({
                "provider": self.settings.name,
                "method": head.method.as_str(),
                "path": head.uri.path_and_query().map_or(path, |target| target.as_str()),
                "headers": header_lines(&head.headers),
            }))),
            Route::Embeddings => {
                let request: EmbeddingsRequest = read(body).await?;
                self.check_model(request.model.as_deref())?;
                let answer = request.embed()?;
                tokio::time::sleep_until(start + self.pace.first_token_delay).await;
                Ok(whole(&answer))
            }
            Route::Chat => {
                let request: ChatRequest = read(body).await?;
                self.check_model(request.model.as_deref())?;
                let id = format!("chatcmpl-{}-{number}", self.settings.name);
                let completion = request.complete(&self.settings.name, id, unix_seconds())?;
                if request.stream.unwrap_or(false) {
                    let frames =
                        stream::frames(&completion, request.include_usage(), self.pace, start);
                    return Ok(events(Box::pin(frames)));
                }
                let last = completion.completion_tokens.saturating_sub(1);
                tokio::time::sleep_until(start + self.pace.due(last)).await;
                Ok(whole(&completion.body()))
            }
        }
    }

    fn model(&self, id: &str) -> Value {
        json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": self.settings.name})
    }

    /// A missing model is left to the request's own reader, which names the field.
    fn check_model(&self, model: Option<&str>) -> Result<(), Refusal> {
        match model {
            Some(model) if !self.settings.models.iter().any(|known| known == model) => {
                Err(Refusal::NoSuchModel {
                    model: model.to_owned(),
                })
            }
            _ => Ok(()),
        }
    }

    fn check_key(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.settings.api_keys.is_empty() {
            return Ok(());
        }
        let value = headers.get(AUTHORIZATION).ok_or(Refusal::NoKey)?;
        let key = value
            .to_str()
            .ok()
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or(Refusal::NoKey)?;
        if self.settings.api_keys.iter().any(|known| known == key) {
            Ok(())
        } else {
            Err(Refusal::WrongKey)
        }
    }
}

/// Each header's values in the order they came, by lower-case name.
fn header_lines(headers: &HeaderMap) -> Value {
    let lines = headers.keys().map(|name| {
        let values = headers.get_all(name).iter();
        let values: Vec<_> = values
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        (name.as_str().to_owned(), json!(values))
    });
    Value::Object(lines.collect::<Map<_, _>>())
}

async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, Refusal> {
    let bytes = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(Refusal::TooLarge { limit: BODY_LIMIT });
        }
        Err(_) => return Err(Refusal::Unreadable),
    };
    serde_json::from_slice(&bytes).map_err(|error| Refusal::NotUnderstood {
        problem: error.to_string(),
    })
}

fn whole(body: &Value) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::from(body.to_string())));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn events(frames: Frames) -> Response<Body> {
    let mut response = Response::new(Either::Right(StreamBody::new(frames)));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
