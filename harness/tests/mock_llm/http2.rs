//! HTTP/2 with prior knowledge: the same answers, and faults as far as it has them.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tollgate_harness::mock_llm::MockLlm;

use super::{CHAT, chunks, ledger, provider, question, streamed};

/// What came of an answer, and whether the stream was reset.
struct Came {
    text: String,
    trailer: Option<String>,
    reset: bool,
}

async fn connect(provider: &MockLlm) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(provider.address()).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &mut SendRequest<Full<Bytes>>, plan: &str, body: &Value) -> Came {
    let request = hyper::Request::post(format!("http://mock{CHAT}"))
        .header("x-mock", plan)
        .body(Full::from(body.to_string()))
        .unwrap();
    let mut came = Came {
        text: String::new(),
        trailer: None,
        reset: false,
    };
    let Ok(mut answer) = sender.send_request(request).await else {
        came.reset = true;
        return came;
    };
    while let Some(frame) = answer.frame().await {
        match frame {
            Err(_) => {
                came.reset = true;
                break;
            }
            Ok(frame) => match frame.into_data() {
                Ok(data) => came.text.push_str(std::str::from_utf8(&data).unwrap()),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap();
                    let value = trailers["x-mock-trailer"].to_str().unwrap();
                    came.trailer = Some(value.to_owned());
                }
            },
        }
    }
    came
}

#[tokio::test]
async fn streams_share_a_connection_and_a_reset_takes_only_its_own() {
    let provider = provider();
    let mut sender = connect(&provider).await;
    let cut = ask(&mut sender, "reset=5", &streamed("hi")).await;
    assert_eq!((chunks(&cut.text).len(), cut.reset), (5, true));
    let never = ask(&mut sender, "reset=before", &streamed("hi")).await;
    assert_eq!((never.text.as_str(), never.reset), ("", true));
    let streamed = ask(&mut sender, "trailers", &streamed("hi")).await;
    let whole = ask(&mut sender, "none", &question("hi")).await;
    assert_eq!(streamed.trailer.as_deref(), Some("end"));
    let whole: Value = serde_json::from_str(&whole.text).unwrap();
    assert_eq!(
        chunks(&streamed.text).last().unwrap()["usage"],
        whole["usage"]
    );
    let ledger = ledger(&provider);
    let ends: Vec<&Value> = ledger["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["ended"])
        .collect();
    assert_eq!(ends, ["reset", "reset", "complete", "complete"]);
}

#[tokio::test]
async fn a_stream_that_its_client_drops_is_noted_and_the_others_go_on() {
    let provider = provider();
    let mut sender = connect(&provider).await;
    let request = hyper::Request::post(format!("http://mock{CHAT}"))
        .header("x-mock", "stall=3")
        .body(Full::from(streamed("hi").to_string()))
        .unwrap();
    let mut stalled = sender.send_request(request).await.unwrap();
    let mut text = String::new();
    while chunks(&text).len() < 3 {
        let data = stalled.frame().await.unwrap().unwrap().into_data().unwrap();
        text.push_str(std::str::from_utf8(&data).unwrap());
    }
    drop(stalled);
    assert!(!ask(&mut sender, "none", &question("hi")).await.reset);
    let ledger = tokio::task::spawn_blocking(move || ledger(&provider))
        .await
        .unwrap();
    let stalled = ledger["entries"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["aborted"] == json!(true));
    assert_eq!(stalled.unwrap()["written_tokens"], 2, "{ledger}");
}
