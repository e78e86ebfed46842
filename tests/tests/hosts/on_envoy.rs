//! Experiments in a real Envoy: a listener for each, with a VM of its own.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{io, thread};

use serde_json::json;
use tempfile::TempDir;
use tollgate_harness::envoy::{self, Besides, Envoy, Filter, Listener, Tuning, cluster_name};
use tollgate_harness::http::Headers;
use tollgate_harness::wire::{self, Answer, Recorder, Response, WireError};
use tollgate_tests::module;

use crate::experiment::{Client, Experiment, Seen, Step, Upstream};
use crate::message::Ask;

/// How long to wait for what is to be seen: log lines come when the client has its answer already.
const PATIENCE: Duration = Duration::from_secs(10);

/// An Envoy with a listener for each experiment.
pub(crate) struct Gateway {
    envoy: Envoy,
    upstream: Recorder,
    asked: Recorder,
    /// Accepts connections and never answers.
    _silent: TcpListener,
    /// Guests that are not the workspace's.
    _written: TempDir,
}

impl Gateway {
    pub(crate) fn start(experiments: &[Experiment]) -> Self {
        let upstream = Recorder::start().expect("a port for the upstream");
        let asked = Recorder::start().expect("a port for the upstream of calls");
        asked.answer(Answer {
            status: 404,
            headers: [("x-from", "asked")].into_iter().collect(),
            body: "answer".into(),
            chunked: false,
        });
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let silent_at = silent.local_addr().expect("its address");
        let nobody = unused();
        let closing_at = closing();
        let written = tempfile::tempdir().expect("a directory");
        let mut listeners: Vec<_> = experiments
            .iter()
            .map(|experiment| Listener {
                name: experiment.id.to_owned(),
                filters: experiment
                    .entries
                    .iter()
                    .map(|name| Filter {
                        name: (*name).to_owned(),
                        module: guest(experiment, written.path()),
                        configuration: json!({
                            "do": experiment.id, "as": name,
                            "asked": cluster_name(asked.address()),
                            "nobody": cluster_name(nobody),
                            "silent": cluster_name(silent_at),
                            "closing": cluster_name(closing_at),
                        })
                        .to_string(),
                        vm_id: experiment.id.to_owned(),
                    })
                    .collect(),
                upstream: upstream.address(),
                proxy_protocol: false,
            })
            .collect();
        // Makes Envoy know the clusters.
        for (name, address) in [
            ("asked", asked.address()),
            ("nobody", nobody),
            ("silent", silent_at),
            ("closing", closing_at),
        ] {
            listeners.push(Listener {
                name: name.to_owned(),
                filters: Vec::new(),
                upstream: address,
                proxy_protocol: false,
            });
        }
        let tune = |filter: &Filter| Tuning {
            headers_stop_iteration: experiments
                .iter()
                .all(|one| one.id != filter.vm_id || one.headers_stop_iteration),
            environment: [("QUIRK".to_owned(), "set".to_owned())].into(),
            ..Tuning::default()
        };
        let besides = Besides {
            tune: &tune,
            ..Besides::default()
        };
        let executable = envoy::find().expect("an Envoy");
        let envoy = Envoy::start_with(&executable, &listeners, 1, &besides).expect("it starts");
        Self {
            envoy,
            upstream,
            asked,
            _silent: silent,
            _written: written,
        }
    }

    /// What an experiment shows; waits for what is wanted as long as is bearable.
    pub(crate) fn observe(&self, experiment: &Experiment, wanted: &str) -> String {
        let Ok(address) = self.envoy.address(experiment.id) else {
            return "does not start".to_owned();
        };
        self.upstream.answer(experiment.told.to_wire());
        drop((self.upstream.take_seen(), self.asked.take_seen()));
        let mut seen = Seen::default();
        let mut started = Vec::new();
        for step in &experiment.steps {
            match step {
                Step::Send(ask) => seen.clients.push(send(address, ask, experiment.patience)),
                Step::Start(ask) => {
                    started.push(begin(address, ask, experiment.patience).map(|c| (c, ask)));
                }
            }
        }
        for begun in started {
            seen.clients.push(match begun {
                Ok((connection, ask)) => outcome(Response::read(
                    &mut BufReader::new(&connection),
                    ask.method(),
                )),
                Err(_) => Client::Cut,
            });
        }
        let started = Instant::now();
        loop {
            seen.said = self.said(experiment.id);
            let upstream = self.upstream.take_seen().into_iter();
            seen.upstream.extend(upstream.map(|request| Upstream {
                path: request.target,
                headers: request.headers,
                body: request.body.to_vec(),
            }));
            seen.asked
                .extend(self.asked.take_seen().into_iter().map(|call| call.target));
            let got = experiment.report(&seen);
            if got == wanted || started.elapsed() > PATIENCE {
                return got;
            }
            // What a filter notes in its ticks it says in a later request.
            if let (true, Some(Step::Send(ask))) = (got == "silence", experiment.steps.last()) {
                send(address, ask, experiment.patience);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the filters of an experiment said, on whatever thread.
    fn said(&self, id: &str) -> Vec<String> {
        let log = self.envoy.log().expect("a log");
        let mark = format!(" {id}: quirks: ");
        log.lines()
            .filter_map(|line| Some(line.split_once(&mark)?.1.to_owned()))
            .collect()
    }
}

/// The module of an experiment.
fn guest(experiment: &Experiment, directory: &Path) -> PathBuf {
    let Some(source) = experiment.guest else {
        return module("quirks");
    };
    let path = directory.join(format!("{}.wasm", experiment.id));
    let bytes = wat::parse_str(source).expect("a guest in the text form");
    std::fs::write(&path, bytes).expect("a file");
    path
}

/// An upstream that hangs up on everyone, once it has a request.
fn closing() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for mut connection in listener.incoming().map_while(Result::ok) {
            // Whatever comes, it ends here.
            let _ = connection.read(&mut [0; 4096]);
        }
    });
    address
}

/// A port that nobody listens on.
fn unused() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address")
}

fn begin(address: SocketAddr, ask: &Ask, patience: Duration) -> io::Result<TcpStream> {
    let mut connection = wire::connect(address)?;
    connection.set_read_timeout(Some(patience))?;
    // An answer may come before all is sent; that shows when it is read.
    let _ = connection.write_all(&ask.to_wire());
    Ok(connection)
}

pub(crate) fn send(address: SocketAddr, ask: &Ask, patience: Duration) -> Client {
    match begin(address, ask, patience) {
        Ok(connection) => outcome(Response::read(
            &mut BufReader::new(&connection),
            ask.method(),
        )),
        Err(_) => Client::Cut,
    }
}

fn outcome(response: Result<Response, WireError>) -> Client {
    match response {
        Ok(response) => {
            let mut headers = Headers::new();
            for (name, value) in response.headers {
                headers.push(name, value);
            }
            Client::Answer {
                status: response.status,
                headers,
                body: response.body.to_vec(),
            }
        }
        Err(WireError::Connection(error))
            if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
        {
            Client::Nothing
        }
        Err(_) => Client::Cut,
    }
}
