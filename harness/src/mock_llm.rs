//! An OpenAI-compatible provider in one process: for the demo, for tests, and for trying a gateway without an account.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/chat/completions` | a chat completion, whole or as server-sent events (`stream`, `stream_options.include_usage`, `max_tokens`, `max_completion_tokens`) |
//! | `POST /v1/embeddings` | unit vectors (`dimensions`; `encoding_format` `float` or `base64`) |
//! | `GET /v1/models`, `GET /v1/models/{id}` | the configured models |
//! | `GET /health` | 200 |
//! | any method, `/v1/whoami` | the request as it arrived here: method, path, every header. For seeing what a gateway adds and removes |
//!
//! Equal prompts get equal answers and equal vectors. Usage follows the rule of [`tokens`], so that a test knows the
//! truth. Errors have OpenAI's form and statuses. With [`Settings::api_keys`], `/v1/` wants `Authorization: Bearer`.

mod chat;
mod embeddings;
mod refusal;
mod routes;
mod stream;
pub mod tokens;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::listener::{self, BindError};
use routes::Provider;

/// How long a provider that was told to stop waits for the answers it is giving.
const DRAIN: Duration = Duration::from_secs(5);

/// What a mock provider is and how fast it answers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens; port 0 takes a free port.
    pub listen: SocketAddr,
    /// Its name, which stands in every answer, so that one sees which of several providers answered.
    pub name: String,
    /// The models it serves; another one gets 404 as OpenAI gives it.
    pub models: Vec<String>,
    /// The keys it accepts; none: it asks for no key.
    pub api_keys: Vec<String>,
    /// The wait before the first token, or before a whole answer starts to be written.
    pub first_token_delay: Duration,
    /// The pace of the tokens after that; none: at once.
    pub tokens_per_second: Option<NonZeroU32>,
}

impl Default for Settings {
    fn default() -> Self {
        let models = [
            "gpt-4.1",
            "claude-sonnet-4.5",
            "gemini-2.5-flash",
            "deepseek-v3.2",
            "text-embedding-3-small",
            "text-embedding-3-large",
        ];
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            name: "mock-llm".to_owned(),
            models: models.map(str::to_owned).to_vec(),
            api_keys: Vec::new(),
            first_token_delay: Duration::ZERO,
            tokens_per_second: None,
        }
    }
}

/// A mock provider that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Occurs when its port can't be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Occurs when the system refuses a thread or an event queue.
    #[error("cannot start the provider's thread")]
    Thread(#[from] io::Error),
}

/// A mock provider that is serving, on a thread of its own. Dropping it stops it.
#[derive(Debug)]
pub struct MockLlm {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MockLlm {
    /// Opens the port and starts to serve.
    ///
    /// # Errors
    /// When the port or a thread can't be had.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let listener = listener::bind(settings.listen)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _in_runtime = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let thread = std::thread::Builder::new()
            .name(settings.name.clone())
            .spawn(move || {
                let provider = Rc::new(Provider::new(settings));
                LocalSet::new().block_on(&runtime, serve(listener, provider, stopped));
            })?;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL an OpenAI client takes: `http://127.0.0.1:9001/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}

impl Drop for MockLlm {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was printed by its thread; there is nobody to hand it to.
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: tokio::net::TcpListener,
    provider: Rc<Provider>,
    mut stopped: oneshot::Receiver<()>,
) {
    let open = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Out of file descriptors, most likely: connections that end free some.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            _ = &mut stopped => break,
        };
        // Small event frames must not wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let provider = Rc::clone(&provider);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(
                TokioIo::new(stream),
                hyper::service::service_fn(move |request| {
                    let provider = Rc::clone(&provider);
                    async move { Ok::<_, std::convert::Infallible>(provider.answer(request).await) }
                }),
            );
        let watched = open.watch(connection);
        tokio::task::spawn_local(async move {
            // A client that hangs up in the middle is its own business.
            let _ = watched.await;
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, open.shutdown()).await;
}
