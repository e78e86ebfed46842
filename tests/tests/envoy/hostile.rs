//! Requests that a client should not send, and some that are only unusual.

use std::io::Write;

use tollgate_harness::wire::{self, WireError};

use super::Gateway;

/// A body larger than Envoy buffers (1 MiB).
const HUGE: usize = 10 << 20;

/// The nesting of a deep JSON body.
const DEEP: usize = 100_000;

/// One request.
pub struct Attack {
    /// What is wrong with it.
    pub name: &'static str,
    bytes: Vec<u8>,
    end: End,
}

/// What is to come of it.
enum End {
    /// An answer with one of these statuses.
    Status(&'static [u16]),
    /// An answer with one of these statuses, or a closed connection.
    StatusOrClosed(&'static [u16]),
    /// The client goes away without waiting for an answer.
    Abort,
}

impl Attack {
    /// Sends it and checks what comes of it.
    pub fn run(&self, gateway: &Gateway, listener: &str) {
        let address = gateway.envoy.address(listener).unwrap();
        let name = self.name;
        match &self.end {
            End::Abort => {
                let mut connection = wire::connect(address).unwrap();
                connection.write_all(&self.bytes).unwrap();
            }
            End::Status(statuses) => match wire::exchange(address, "GET", &self.bytes) {
                Ok(response) => assert!(
                    statuses.contains(&response.status),
                    "{name} on {listener}: {response:?}"
                ),
                Err(error) => panic!("{name} on {listener}: {error}"),
            },
            End::StatusOrClosed(statuses) => match wire::exchange(address, "GET", &self.bytes) {
                Ok(response) => assert!(
                    statuses.contains(&response.status),
                    "{name} on {listener}: {response:?}"
                ),
                Err(WireError::Closed | WireError::Connection(_)) => {}
                Err(error) => panic!("{name} on {listener}: {error}"),
            },
        }
        // What of it reached the upstream is not the next request's.
        let _ = gateway.upstream.take_seen();
    }
}

impl Attack {
    /// Sends it to a filter that has no opinion on keys: any answer will do, and so will a closed connection.
    pub fn send(&self, gateway: &Gateway, listener: &str) {
        let address = gateway.envoy.address(listener).unwrap();
        if let End::Abort = self.end {
            let mut connection = wire::connect(address).unwrap();
            connection.write_all(&self.bytes).unwrap();
        } else {
            match wire::exchange(address, "GET", &self.bytes) {
                Ok(_) | Err(WireError::Closed | WireError::Connection(_)) => {}
                Err(error) => panic!("{} on {listener}: {error}", self.name),
            }
        }
        let _ = gateway.upstream.take_seen();
    }
}

fn attack(name: &'static str, bytes: impl Into<Vec<u8>>, end: End) -> Attack {
    Attack {
        name,
        bytes: bytes.into(),
        end,
    }
}

/// A GET request with these bytes as its header lines.
fn get(target: &str, lines: &[u8]) -> Vec<u8> {
    [
        format!("GET {target} HTTP/1.1\r\nHost: gateway.test\r\n").as_bytes(),
        lines,
        b"\r\n",
    ]
    .concat()
}

/// A POST request with a body.
fn post(content_type: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.test\r\nContent-Type: {content_type}\r\n{lines}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A POST request whose body comes in chunks of this size, with trailers.
fn chunked(content_type: &str, lines: &str, body: &[u8], size: usize, trailers: &str) -> Vec<u8> {
    let mut bytes = format!(
        "POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Type: {content_type}\r\n{lines}Transfer-Encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    bytes
}

/// All of them. `key` is a right key.
pub fn attacks(key: &str) -> Vec<Attack> {
    let mut attacks = heads(key);
    attacks.extend(bodies(key));
    attacks
}

fn heads(key: &str) -> Vec<Attack> {
    let keyed = format!("apikey: {key}\r\n");
    let with = |lines: &[u8]| get("/", &[keyed.as_bytes(), lines].concat());
    let many = |count: usize| -> Vec<u8> {
        (0..count)
            .flat_map(|n| format!("X-Many-{n}: {n}\r\n").into_bytes())
            .collect()
    };
    let long = |length: usize| format!("X-Long: {}\r\n", "a".repeat(length)).into_bytes();
    vec![
        attack(
            "User-Agent that is not UTF-8",
            with(b"User-Agent: a\xff\r\n"),
            End::Status(&[200]),
        ),
        attack(
            "key that is not UTF-8",
            get("/", b"apikey: \xff\xfe\r\n"),
            End::Status(&[401]),
        ),
        attack(
            "bearer that is not UTF-8",
            get("/", b"Authorization: Bearer \xc3\x28\r\n"),
            End::Status(&[401]),
        ),
        attack(
            "basic that is not base64",
            get("/", b"Authorization: Basic !!!!=\r\n"),
            End::Status(&[401]),
        ),
        attack(
            "scheme alone",
            get("/", b"Authorization: Bearer\r\n"),
            End::Status(&[401]),
        ),
        attack("90 headers", with(&many(90)), End::Status(&[200])),
        attack("500 headers", with(&many(500)), End::Status(&[431])),
        attack(
            "empty header values",
            with(b"X-Empty:\r\nUser-Agent:\r\nAccept:\r\n"),
            End::Status(&[200]),
        ),
        attack("empty key", get("/", b"apikey:\r\n"), End::Status(&[401])),
        attack("50 KB header", with(&long(50_000)), End::Status(&[200])),
        attack("70 KB header", with(&long(70_000)), End::Status(&[431])),
        attack(
            "50 KB key",
            get(
                "/",
                format!("apikey: {}\r\n", "k".repeat(50_000)).as_bytes(),
            ),
            End::Status(&[401]),
        ),
        attack("repeated key", with(keyed.as_bytes()), End::Status(&[401])),
        attack(
            "bad percent escapes",
            get("/?%zz=%&apikey=%ff%00%&%=%%%", b""),
            End::Status(&[401]),
        ),
        attack(
            "repeated key in the query",
            get(&format!("/?apikey={key}&apikey={key}"), b""),
            End::Status(&[401]),
        ),
        attack(
            "50 KB query",
            get(&format!("/?{}", "a=b&".repeat(12_500)), b""),
            End::Status(&[401]),
        ),
        attack(
            "query of separators",
            get(&format!("/?{}", "&=&".repeat(10_000)), keyed.as_bytes()),
            End::Status(&[200]),
        ),
        attack(
            "NUL in the path",
            get("/\0", keyed.as_bytes()),
            End::StatusOrClosed(&[400]),
        ),
        attack(
            "NUL in a header",
            with(b"X-Nul: a\0b\r\n"),
            End::StatusOrClosed(&[400]),
        ),
        attack(
            "Accept of nonsense",
            get("/", b"Accept: ;;;q=,\xff/*;q=9e999,,\r\n"),
            End::Status(&[401]),
        ),
        attack(
            "unusual method",
            [
                b"PURGE / HTTP/1.1\r\nHost: a\r\n",
                keyed.as_bytes(),
                b"\r\n",
            ]
            .concat(),
            End::StatusOrClosed(&[200, 400]),
        ),
        attack(
            "OPTIONS *",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            End::StatusOrClosed(&[200, 400, 401, 404]),
        ),
        attack(
            "absolute target",
            get("http://gateway.test/?apikey", keyed.as_bytes()),
            End::Status(&[200]),
        ),
        attack(
            "HTTP/1.0",
            format!("GET / HTTP/1.0\r\nHost: a\r\n{keyed}\r\n"),
            End::Status(&[200]),
        ),
        attack(
            "HTTP/1.0 without Host",
            format!("GET / HTTP/1.0\r\n{keyed}\r\n"),
            End::Status(&[400]),
        ),
        attack(
            "no HTTP at all",
            "\x16\x03\x01 hello\r\n\r\n",
            End::StatusOrClosed(&[400]),
        ),
        attack(
            "upgrade",
            with(b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
            End::StatusOrClosed(&[403]),
        ),
    ]
}

fn bodies(key: &str) -> Vec<Attack> {
    let keyed = format!("apikey: {key}\r\n");
    let json = format!("{{\"apikey\":\"{key}\",\"model\":\"m\"}}");
    let deep = format!(
        "{{\"apikey\":\"{key}\",\"x\":{}{}}}",
        "[".repeat(DEEP),
        "]".repeat(DEEP)
    );
    let boundary = "multipart/form-data; boundary=b";
    let unended = post("application/json", &keyed, b"{}");
    let aborted = |lines: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{lines}Content-Length: 1000\r\n\r\n{{\"apikey\":"
        )
    };
    // Without key_in_body a key in the body is not looked at: where the right one is there, either status can come.
    vec![
        attack(
            "malformed JSON",
            post("application/json", "", b"{\"apikey\": \"\\ud800"),
            End::Status(&[401]),
        ),
        attack(
            "JSON of one byte",
            post("application/json", "", b"["),
            End::Status(&[401]),
        ),
        attack(
            "JSON that is not UTF-8",
            post("application/json", "", b"{\"apikey\":\"\xff\xfe\"}"),
            End::Status(&[401]),
        ),
        attack(
            "JSON nested 100,000 deep",
            post("application/json", "", deep.as_bytes()),
            End::Status(&[200, 401]),
        ),
        attack(
            "open brackets only",
            post("application/json", "", "[".repeat(DEEP).as_bytes()),
            End::Status(&[401]),
        ),
        attack(
            "key that is an object",
            post("application/json", "", b"{\"apikey\":{\"a\":[1,2]}}"),
            End::Status(&[401]),
        ),
        attack(
            "empty body",
            post("application/json", "", b""),
            End::Status(&[401]),
        ),
        attack(
            "form of separators",
            post(
                "application/x-www-form-urlencoded",
                "",
                "&=%".repeat(9_999).as_bytes(),
            ),
            End::Status(&[401]),
        ),
        attack(
            "form with bad escapes",
            post("application/x-www-form-urlencoded", "", b"apikey=%zz%f&%=%"),
            End::Status(&[401]),
        ),
        attack(
            "multipart without an end",
            post(
                boundary,
                "",
                b"--b\r\nContent-Disposition: form-data; name=\"apikey\"\r\n\r\nx",
            ),
            End::Status(&[401]),
        ),
        attack(
            "multipart of boundaries",
            post(boundary, "", "--b\r\n".repeat(9_999).as_bytes()),
            End::Status(&[401]),
        ),
        attack(
            "multipart without a boundary",
            post("multipart/form-data; boundary=", "", b"----\r\n\r\n--"),
            End::Status(&[401]),
        ),
        attack(
            "content type of nonsense",
            post(";;;=\"", "", json.as_bytes()),
            End::Status(&[401]),
        ),
        attack(
            "key in one-byte chunks",
            chunked("application/json", "", json.as_bytes(), 1, ""),
            End::Status(&[200, 401]),
        ),
        attack(
            "trailers",
            chunked(
                "application/json",
                &keyed,
                b"{}",
                1,
                "X-Trailer: a\r\napikey: b\r\n",
            ),
            End::Status(&[200]),
        ),
        attack(
            "empty chunked body",
            chunked("application/json", &keyed, b"", 1, ""),
            End::Status(&[200]),
        ),
        attack(
            "10 MB body with a key",
            post("application/json", &keyed, &vec![b' '; HUGE]),
            End::StatusOrClosed(&[200, 413]),
        ),
        attack(
            "10 MB body without a key",
            post("application/json", "", &vec![b' '; HUGE]),
            End::StatusOrClosed(&[401, 413]),
        ),
        attack(
            "Expect: 100-continue",
            post(
                "application/json",
                &format!("{keyed}Expect: 100-continue\r\n"),
                b"{}",
            ),
            End::Status(&[200]),
        ),
        attack(
            "Content-Length twice",
            post("a/b", &format!("{keyed}Content-Length: 1\r\n"), b"{}"),
            End::StatusOrClosed(&[400]),
        ),
        attack(
            "negative Content-Length",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            End::StatusOrClosed(&[400]),
        ),
        attack(
            "Content-Length and chunks",
            chunked("a/b", "Content-Length: 3\r\n", b"{}", 1, ""),
            End::StatusOrClosed(&[400, 401]),
        ),
        attack(
            "a second request behind the first",
            [unended.as_slice(), b"GET"].concat(),
            End::Status(&[200]),
        ),
        attack("abort in the middle of the body", aborted(""), End::Abort),
        attack(
            "abort in the middle of the body, with a key",
            aborted(&keyed),
            End::Abort,
        ),
    ]
}
