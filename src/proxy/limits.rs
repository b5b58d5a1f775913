//! What a connection may take, in bytes, numbers and time.

use std::time::Duration;

/// Bounds per connection, but for `connections`. What exceeds them is refused, never cut short.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections of clients at a time; those beyond are closed at once.
    pub connections: usize,
    /// Those of them from one address.
    pub per_client: usize,
    /// Bytes of a head, with request or status line.
    pub head: usize,
    /// Bytes of a request's target.
    pub target: usize,
    /// Field lines of a head.
    pub fields: usize,
    /// Interim responses (1xx) before the final one.
    pub interim: usize,
    /// Bytes of a denied request's body that are read to keep the connection.
    pub drain: usize,
    /// From the first byte of a head, or of a TLS handshake, to its last; and until a connection's first byte comes.
    pub head_time: Duration,
    /// Between two bytes of a request's body, and for a client to take what it is sent.
    pub body_time: Duration,
    /// Without a byte in either direction.
    pub idle_time: Duration,
    /// To reach the server.
    pub connect_time: Duration,
    /// Streams of an HTTP/2 connection at a time.
    pub streams: u32,
    /// HTTP/2: streams that the client reset before they were looked at.
    pub resets: usize,
    /// HTTP/2: frames that carry nothing (PING, SETTINGS, PRIORITY, RST_STREAM, WINDOW_UPDATE) which a client can save
    /// up for; [`Limits::control_per_second`] come back.
    pub control: u32,
    pub control_per_second: u32,
    /// HTTP/2: bytes of a stream, and of a connection, on their way in one direction.
    pub stream_window: u32,
    pub connection_window: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 16_384,
            per_client: 4096,
            head: 32 << 10,
            target: 8 << 10,
            fields: 100,
            interim: 16,
            drain: 64 << 10,
            head_time: Duration::from_secs(30),
            body_time: Duration::from_secs(120),
            idle_time: Duration::from_secs(3600),
            connect_time: Duration::from_secs(10),
            streams: 128,
            resets: 20,
            control: 1000,
            control_per_second: 100,
            stream_window: 256 << 10,
            connection_window: 1 << 20,
        }
    }
}
