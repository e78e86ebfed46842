//! A gateway to try at once: two mock providers, and the proxy with key-auth in front of them.
//!
//! What is printed to be pasted and what [`Demo::check`] sends is the same list of [`Example`]s.

use std::fmt::{self, Write};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::catalog::Search;
use crate::mock_llm::{self, MockLlm, Settings};
use crate::proxy::{Config, ConfigError, Proxy, StartError};

const CHAT: &str =
    r#"{"model": "gpt-4.1", "messages": [{"role": "user", "content": "Is the toll paid?"}]}"#;

const STREAM: &str = r#"{"model": "gpt-4.1", "stream": true, "stream_options": {"include_usage": true}, "messages": [{"role": "user", "content": "Is the toll paid?"}]}"#;

const EMBEDDING: &str =
    r#"{"model": "text-embedding-3-small", "input": "Is the toll paid?", "dimensions": 4}"#;

/// How long one example may take.
const PATIENCE: Duration = Duration::from_secs(10);

const ALICE: &str = "X-API-Key: alice-key";

const BOB: &str = "Authorization: Bearer bob-key";

/// A demo that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Occurs when a mock provider does not start.
    #[error(transparent)]
    Provider(#[from] mock_llm::StartError),
    /// Occurs when the configuration can't be used: the key-auth module is not built, most likely.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Occurs when the proxy does not start: its port is in use, most likely.
    #[error(transparent)]
    Proxy(#[from] StartError),
}

/// A running demo. Dropping it stops it.
#[derive(Debug)]
pub struct Demo {
    proxy: Proxy,
    address: SocketAddr,
    providers: [MockLlm; 2],
}

/// A request worth trying, and what it shows.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// What it shows, as a comment over the curl line.
    pub shows: &'static str,
    /// Path and query.
    pub target: &'static str,
    /// Header lines.
    pub headers: &'static [&'static str],
    /// The body of a POST; none: a GET.
    pub body: Option<&'static str>,
    /// The status it gets.
    pub status: StatusCode,
    /// What stands in the answer's body.
    pub contains: &'static str,
    /// What does not.
    pub lacks: Option<&'static str>,
}

/// Every request of the demo.
pub const EXAMPLES: [Example; 8] = [
    Example {
        shows: "A valid key",
        target: "/v1/chat/completions",
        headers: &[ALICE],
        body: Some(CHAT),
        status: StatusCode::OK,
        contains: "\"finish_reason\":\"stop\"",
        lacks: None,
    },
    Example {
        shows: "The key where OpenAI's clients put it",
        target: "/v1/chat/completions",
        headers: &[BOB],
        body: Some(CHAT),
        status: StatusCode::OK,
        contains: "\"finish_reason\":\"stop\"",
        lacks: None,
    },
    Example {
        shows: "A streamed answer, ended by its usage",
        target: "/v1/chat/completions",
        headers: &[BOB],
        body: Some(STREAM),
        status: StatusCode::OK,
        contains: "data: [DONE]",
        lacks: None,
    },
    Example {
        shows: "Embeddings",
        target: "/v1/embeddings",
        headers: &[BOB],
        body: Some(EMBEDDING),
        status: StatusCode::OK,
        contains: "\"object\":\"embedding\"",
        lacks: None,
    },
    Example {
        shows: "Models, with the key in the query",
        target: "/v1/models?X-API-Key=alice-key",
        headers: &[],
        body: None,
        status: StatusCode::OK,
        contains: "\"id\":\"gpt-4.1\"",
        lacks: None,
    },
    Example {
        shows: "What the provider sees: alice, though the client claims to be root, and no key",
        target: "/v1/whoami",
        headers: &[ALICE, "X-Consumer-Username: root"],
        body: None,
        status: StatusCode::OK,
        contains: "\"x-consumer-username\":[\"alice\"]",
        lacks: Some("alice-key"),
    },
    Example {
        shows: "No key: 401",
        target: "/v1/models",
        headers: &[],
        body: None,
        status: StatusCode::UNAUTHORIZED,
        contains: "\"error\"",
        lacks: None,
    },
    Example {
        shows: "A wrong key: 401",
        target: "/v1/models",
        headers: &["X-API-Key: guessed"],
        body: None,
        status: StatusCode::UNAUTHORIZED,
        contains: "\"error\"",
        lacks: Some("guessed"),
    },
];

impl Demo {
    /// Starts the providers and the proxy; port 0 takes a free port.
    ///
    /// # Errors
    /// When a port can't be had or the key-auth module is not built.
    pub fn start(listen: SocketAddr, access_log: bool, search: &Search) -> Result<Self, DemoError> {
        let provider = |name: &str| {
            MockLlm::start(Settings {
                name: name.to_owned(),
                ..Settings::default()
            })
        };
        let providers = [provider("provider-a")?, provider("provider-b")?];
        let yaml = configuration(listen, access_log, &providers);
        let checked = Config::read(&yaml, Path::new("."), search)?;
        let proxy = Proxy::start(checked.config)?;
        let address = proxy.addresses().first().copied().unwrap_or(listen);
        Ok(Self {
            proxy,
            address,
            providers,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What to paste.
    pub fn page(&self) -> String {
        let mut page = String::new();
        let [a, b] = self.providers.each_ref().map(MockLlm::address);
        let address = self.address;
        // Writing to a String can't fail.
        let _ = writeln!(
            page,
            "The gateway is http://{address}; key-auth stands before two mock providers ({a}, {b})."
        );
        let _ = writeln!(page, "Consumers: alice with alice-key, bob with bob-key.");
        if let Some(admin) = self.proxy.admin_address() {
            let _ = writeln!(page, "Figures: curl http://{admin}/metrics");
        }
        for example in EXAMPLES {
            let _ = write!(page, "\n# {}\n{}\n", example.shows, example.curl(address));
        }
        let _ = write!(
            page,
            "\n# OpenAI's SDK for Python (pip install openai)\n\
             from openai import OpenAI\n\
             client = OpenAI(base_url=\"http://{address}/v1\", api_key=\"bob-key\")\n\
             question = [{{\"role\": \"user\", \"content\": \"Is the toll paid?\"}}]\n\
             for chunk in client.chat.completions.create(model=\"gpt-4.1\", messages=question, stream=True):\n\
             \x20   print(chunk.choices[0].delta.content or \"\", end=\"\")\n"
        );
        page
    }

    /// Sends each example once.
    ///
    /// # Errors
    /// When the system gives no event queue.
    pub fn check(&self) -> io::Result<Vec<(Example, Result<(), Mismatch>)>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(runtime.block_on(async {
            let mut results = Vec::new();
            for example in EXAMPLES {
                let sent = tokio::time::timeout(PATIENCE, example.send(self.address)).await;
                results.push((example, sent.unwrap_or(Err(Mismatch::Late))));
            }
            results
        }))
    }
}

/// How an answer differs from what its example promises.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// Occurs when there is no answer.
    #[error("no answer: {0}")]
    Unanswered(#[from] hyper_util::client::legacy::Error),
    /// Occurs when the whole answer takes too long.
    #[error("no complete answer within {} s", PATIENCE.as_secs())]
    Late,
    /// Occurs when the answer breaks off.
    #[error("the answer broke off: {0}")]
    CutOff(#[from] hyper::Error),
    /// Occurs when the example is no valid request.
    #[error("not a request: {0}")]
    NoRequest(#[from] http::Error),
    /// Occurs when the status is another one.
    #[error("expected {expected}, got {got}: {body}")]
    Status {
        /// The promised one.
        expected: StatusCode,
        /// The one that came.
        got: StatusCode,
        /// What came with it.
        body: String,
    },
    /// Occurs when the body lacks what was promised.
    #[error("expected {expected} in: {body}")]
    Lacking {
        /// What was promised.
        expected: &'static str,
        /// What came.
        body: String,
    },
    /// Occurs when the body has what must not be there.
    #[error("expected no {unwanted} in: {body}")]
    Leaking {
        /// What must not be there.
        unwanted: &'static str,
        /// What came.
        body: String,
    },
}

impl Example {
    /// The command line that sends it.
    #[must_use]
    pub fn curl(&self, address: SocketAddr) -> String {
        let mut line = format!("curl -s -N -w '\\n' 'http://{address}{}'", self.target);
        for header in self.headers {
            let _ = write!(line, " -H '{header}'");
        }
        if let Some(body) = self.body {
            let _ = write!(line, " -H 'Content-Type: application/json' -d '{body}'");
        }
        if !self.status.is_success() {
            line = line.replacen("curl -s", "curl -s -i", 1);
        }
        line
    }

    async fn send(&self, address: SocketAddr) -> Result<(), Mismatch> {
        let mut request = Request::builder()
            .method(if self.body.is_some() { "POST" } else { "GET" })
            .uri(format!("http://{address}{}", self.target))
            .header("content-type", "application/json");
        for line in self.headers {
            let (name, value) = line.split_once(": ").unwrap_or((line, ""));
            request = request.header(name, value);
        }
        let request = request.body(Full::from(self.body.unwrap_or_default()))?;
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let (head, body) = client.request(request).await?.into_parts();
        let body = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
        if head.status != self.status {
            return Err(Mismatch::Status {
                expected: self.status,
                got: head.status,
                body,
            });
        }
        if !body.contains(self.contains) {
            return Err(Mismatch::Lacking {
                expected: self.contains,
                body,
            });
        }
        match self.lacks {
            Some(unwanted) if body.contains(unwanted) => Err(Mismatch::Leaking { unwanted, body }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shows)
    }
}

/// The proxy's file. The digests are those of `alice-key` and `bob-key`.
fn configuration(listen: SocketAddr, access_log: bool, providers: &[MockLlm; 2]) -> String {
    let [a, b] = providers.each_ref().map(MockLlm::address);
    format!(
        "
profile: envoy
access_log: {access_log}
listeners: [{{address: '{listen}'}}]
admin: {{address: '127.0.0.1:0'}}
routes: [{{prefix: /, cluster: providers, filters: [auth]}}]
clusters:
  providers: {{endpoints: ['{a}', '{b}']}}
filters:
  auth:
    wasm: key-auth
    on_trap: reload
    config:
      key_names: [X-API-Key, Authorization]
      hide_credentials: true
      error_format: openai
      host: envoy
      consumers:
        - username: alice
          credentials: [{{key_sha256: 72ee9d4355ccb9d3a4c9dbf37382e38e75c1b1a225b5bd1f729ee91bbda30c20}}]
        - username: bob
          credentials: [{{key_sha256: 9b94dc1a51a38769f135edf04033ad7f2f487b6c25929be7a861cfc1ab10cf98}}]
"
    )
}
