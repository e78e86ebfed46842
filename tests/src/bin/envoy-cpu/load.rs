//! What is asked: how, how often, and of whom.

use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::thread;

use anyhow::ensure;
use tollgate_harness::wire::{self, Response};

/// The key of the consumer that the filters know.
const KEY: &str = "sk-0000000500-abcdefghijklmnopqrstuvwxyz";

/// The traffic of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Requests without a body, to an upstream that answers two bytes.
    Get,
    /// Chat requests of 0.5 KB, to the mock provider.
    Chat,
    /// The same, answered by a stream of 200 events, each a write of its own, at 1,000 a second.
    Stream,
}

impl Load {
    pub const ALL: [Load; 3] = [Load::Get, Load::Chat, Load::Stream];

    pub fn title(self) -> &'static str {
        match self {
            Load::Get => "GET",
            Load::Chat => "chat request of 0.5 KB",
            Load::Stream => "chat request answered by a stream of 200 events",
        }
    }

    /// Connections that send at the same time, and the requests of each in a round.
    fn amount(self) -> (usize, usize) {
        match self {
            Load::Get => (4, 4000),
            Load::Chat => (4, 1000),
            Load::Stream => (16, 20),
        }
    }

    /// Requests in a round.
    pub fn requests(self) -> usize {
        let (connections, requests) = self.amount();
        connections * requests
    }

    /// Sends all requests of a round.
    pub fn send(self, address: SocketAddr) -> anyhow::Result<()> {
        let (connections, requests) = self.amount();
        let senders: Vec<_> = (0..connections)
            .map(|_| thread::spawn(move || self.send_one_by_one(address, requests)))
            .collect();
        for sender in senders {
            sender
                .join()
                .map_err(|_| anyhow::anyhow!("a sender ended early"))??;
        }
        Ok(())
    }

    fn send_one_by_one(self, address: SocketAddr, requests: usize) -> anyhow::Result<()> {
        let request = self.request();
        let connection = wire::connect(address)?;
        let mut from = BufReader::new(&connection);
        for _ in 0..requests {
            (&connection).write_all(request.as_bytes())?;
            let response = Response::read(&mut from, "GET")?;
            ensure!(response.status == 200, "status {}", response.status);
            if self == Load::Stream {
                let body = String::from_utf8_lossy(&response.body);
                let events = body.matches("data: ").count();
                ensure!(events == 200, "{events} events");
            }
        }
        Ok(())
    }

    fn request(self) -> String {
        let headers = format!(
            "Host: gateway.test\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\n\
             User-Agent: OpenAI/Python 3.54.0\r\nX-Stainless-Lang: python\r\nX-Stainless-Os: Linux\r\n\
             X-Request-Id: 2f9d3f6c-8d0d-4a52-b7c5-0c1b5c0f3a11\r\nX-Internal-Debug: 1\r\napikey: {KEY}\r\n"
        );
        let (stream, plan) = match self {
            Load::Get => return format!("GET /v1/models HTTP/1.1\r\n{headers}\r\n"),
            Load::Chat => (false, "tokens=40"),
            // With the role, the reason of the end and [DONE].
            Load::Stream => (true, "tokens=197; rate=1000"),
        };
        let text = "word ".repeat(80);
        let body = format!(
            r#"{{"model":"gpt-4.1","max_tokens":200,"stream":{stream},"messages":[{{"role":"user","content":"{text}"}}]}}"#
        );
        let length = body.len();
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\n{headers}X-Mock: {plan}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
    }
}
