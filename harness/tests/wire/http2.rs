//! HTTP/2 in the test's hand, on either side, with h2 itself: streams can be reset, windows kept shut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, client, server};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What must happen soon.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it did not happen")
}

/// A client with one connection.
pub(crate) struct Client {
    pub(crate) send: SendRequest<Bytes>,
    /// Ends with the connection.
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

/// A message with its whole body.
#[derive(Debug)]
pub(crate) struct Whole<Head> {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    /// By TLS; the server must settle on h2.
    pub(crate) async fn secure(address: SocketAddr, name: &str, config: Arc<ClientConfig>) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = soon(TlsConnector::from(config).connect(name, stream))
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::over(stream).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + 'static + Send) -> Self {
        let (send, connection) = client::Builder::new().handshake(stream).await.unwrap();
        Self {
            send,
            connection: tokio::spawn(connection),
        }
    }

    /// Sends a request without a body.
    pub(crate) async fn get(&self, target: &str) -> Result<Whole<Response<()>>, h2::Error> {
        let mut send = self.send.clone().ready().await?;
        let (answer, _) = send.send_request(request("GET", target), true)?;
        let (head, body) = soon(answer).await?.into_parts();
        whole(Response::from_parts(head, ()), body).await
    }
}

/// A request to `http://gateway`.
pub(crate) fn request(method: &str, target: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("http://gateway{target}"))
        .body(())
        .unwrap()
}

/// Reads a body to its end, giving room for more as it goes.
pub(crate) async fn whole<Head>(
    head: Head,
    mut stream: RecvStream,
) -> Result<Whole<Head>, h2::Error> {
    let mut body = Vec::new();
    while let Some(piece) = soon(stream.data()).await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    let trailers = soon(stream.trailers()).await?;
    Ok(Whole {
        head,
        body,
        trailers,
    })
}

/// A request as an upstream gets it, and the way to answer.
pub(crate) type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// An upstream that speaks HTTP/2.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    requests: mpsc::UnboundedReceiver<Asked>,
    connections: mpsc::UnboundedReceiver<()>,
}

impl Upstream {
    pub(crate) async fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, requests) = mpsc::unbounded_channel();
        let (opened, connections) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (asked, tls) = (asked.clone(), tls.clone());
                let _ = opened.send(());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, asked).await,
                        Some(config) => {
                            if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                                serve(stream, asked).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            requests,
            connections,
        }
    }

    /// The next request.
    pub(crate) async fn asked(&mut self) -> Asked {
        soon(self.requests.recv()).await.unwrap()
    }

    /// Connections since the last time.
    pub(crate) fn connections(&mut self) -> usize {
        std::iter::from_fn(|| self.connections.try_recv().ok()).count()
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, asked: mpsc::UnboundedSender<Asked>) {
    let Ok(mut connection) = server::handshake(stream).await else {
        return;
    };
    while let Some(Ok(request)) = connection.accept().await {
        let _ = asked.send(request);
    }
}
