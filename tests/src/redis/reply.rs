use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// How long Redis may be silent.
const SILENCE: Duration = Duration::from_secs(20);

/// What Redis answers (RESP 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `OK` and the like.
    Status(String),
    /// It refuses: a word in capitals, and why.
    Error(String),
    /// A number.
    Integer(i64),
    /// Bytes.
    Bulk(Vec<u8>),
    /// Several answers.
    List(Vec<Reply>),
    /// There is nothing.
    Nil,
}

/// A connection to Redis; one command at a time.
#[derive(Debug)]
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Fails when the connection does.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, SILENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Gives a command and reads its answer. What Redis refuses is an answer too.
    ///
    /// # Errors
    /// Fails when the connection does, or Redis is silent for 20 seconds.
    pub fn ask(&mut self, words: &[impl AsRef<[u8]>]) -> io::Result<Reply> {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            let word = word.as_ref();
            command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            command.extend_from_slice(word);
            command.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&command)?;
        Reply::read(&mut self.0)
    }
}

impl Reply {
    fn read(from: &mut impl BufRead) -> io::Result<Self> {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let unexpected = || io::Error::other(format!("Redis answered {line:?}"));
        let rest = line.get(1..).ok_or_else(unexpected)?.trim_end();
        let number = || rest.parse::<i64>().map_err(|_| unexpected());
        Ok(match line.as_bytes().first() {
            Some(b'+') => Self::Status(rest.to_owned()),
            Some(b'-') => Self::Error(rest.to_owned()),
            Some(b':') => Self::Integer(number()?),
            Some(b'$') => match usize::try_from(number()?) {
                Err(_) => Self::Nil,
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    from.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Self::Bulk(bytes)
                }
            },
            Some(b'*') => match usize::try_from(number()?) {
                Err(_) => Self::Nil,
                Ok(count) => {
                    let replies = (0..count).map(|_| Self::read(from));
                    Self::List(replies.collect::<io::Result<_>>()?)
                }
            },
            _ => return Err(unexpected()),
        })
    }

    /// As a REST front says it. An error inside a list becomes its text.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Status(text) | Self::Error(text) => json!(text),
            Self::Integer(number) => json!(number),
            Self::Bulk(bytes) => json!(String::from_utf8_lossy(bytes)),
            Self::List(replies) => replies.iter().map(Self::to_json).collect(),
            Self::Nil => Value::Null,
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(text) | Self::Error(text) => out.write_str(text),
            Self::Integer(number) => number.fmt(out),
            Self::Bulk(bytes) => out.write_str(&String::from_utf8_lossy(bytes)),
            Self::List(replies) => {
                let lines: Vec<String> = replies.iter().map(Self::to_string).collect();
                out.write_str(&lines.join("\n"))
            }
            Self::Nil => Ok(()),
        }
    }
}
