//! Every bound of the transport, with its unit and where it comes from; relations are asserted at compile time.

use std::time::Duration;

/// Bytes in a key file: `lighter-key-1 `, 64 hexadecimal digits, a line end, and room for an editor's blanks.
pub const KEY_FILE_LEN_MAX: u64 = 256;

/// From the first byte to the end of a TLS handshake on TCP. A handshake is three flights: this allows for a second of
/// round trip, two lost packets and a loaded machine.
pub const TLS_HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Until a TCP connection stands: three SYNs (1 s, 2 s, 4 s) and some.
pub const TCP_CONNECT_TIME_MAX: Duration = Duration::from_secs(8);
