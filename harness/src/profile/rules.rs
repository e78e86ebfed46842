//! The rows.

/// What a host does where hosts differ.
#[derive(Debug)]
pub struct Rules {
    /// Whether the header callbacks are told that no body follows. Envoy: real. Kong: always false (running).
    pub end_of_stream_on_headers: bool,
}

pub(super) static SPEC: Rules = Rules {
    end_of_stream_on_headers: true,
};
pub(super) static ENVOY: Rules = Rules {
    end_of_stream_on_headers: true,
};
pub(super) static KONG: Rules = Rules {
    end_of_stream_on_headers: false,
};
