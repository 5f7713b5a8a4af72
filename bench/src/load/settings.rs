//! What a load run is asked to do, and the limits of what can be asked.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::data::{KEY_BYTES_MAX, VALUE_BYTES_MAX, key_bytes_min};
use super::{Distribution, Locality};
use crate::error::BenchError;

/// The most connections: the ports that one client address has for one server address.
const CONNECTIONS_MAX: usize = 60_000;

/// The most requests in flight on a connection.
const DEPTH_MAX: usize = 65_536;

/// The most bytes of values in a batch, which is built in memory before it is written.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// The most keys: products of two key numbers must fit 64 bits.
pub(crate) const KEYS_MAX: u64 = u32::MAX as u64;

/// The longest timed run.
pub(crate) const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The commands that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// `mg` and `ms`.
    Meta,
    /// `get` and `set`.
    Text,
    /// The node's own, in which replies may come in any order.
    Native,
}

/// How many GETs are made for how many SETs; not both zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    /// GETs.
    pub get: u32,
    /// SETs.
    pub set: u32,
}

/// What a load run does.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The server.
    pub target: SocketAddr,
    /// Connections over all threads.
    pub connections: usize,
    /// Requests in flight on each connection.
    pub depth: usize,
    /// The loader's threads, at most one for each connection.
    pub threads: usize,
    /// How many keys there are.
    pub keys: u64,
    /// Bytes of each key.
    pub key_size: usize,
    /// Bytes of each value.
    pub value_size: usize,
    /// GETs to SETs.
    pub ratio: Ratio,
    /// How keys are chosen.
    pub distribution: Distribution,
    /// Whose keys a connection of the timed run asks for; anything but all needs
    /// [`Protocol::Native`].
    pub locality: Locality,
    /// Length of the timed run.
    pub duration: Duration,
    /// The timed run also ends after this many operations.
    pub operations: Option<u64>,
    /// A connection is given up, and the run ends, when no answer comes for this long.
    pub timeout: Duration,
    /// Whether each key is stored once before the timed run.
    pub fill: bool,
    /// The commands to send.
    pub protocol: Protocol,
    /// The seed of all random choices.
    pub seed: u64,
    /// Processors for the threads, in turn; none leaves them free.
    pub cpus: Vec<usize>,
    /// The local process whose CPU time and memory are reported.
    pub server_pid: Option<u32>,
}

impl Settings {
    /// GETs of 100,000 keys with 32-byte values for ten seconds, one connection, no fill.
    pub fn against(target: SocketAddr) -> Self {
        Self {
            target,
            connections: 1,
            depth: 1,
            threads: 1,
            keys: 100_000,
            key_size: 16,
            value_size: 32,
            ratio: Ratio { get: 1, set: 0 },
            distribution: Distribution::Uniform,
            locality: Locality::Any,
            duration: Duration::from_secs(10),
            operations: None,
            timeout: Duration::from_secs(30),
            fill: false,
            protocol: Protocol::Meta,
            seed: 1,
            cpus: Vec::new(),
            server_pid: None,
        }
    }

    /// Checks every limit and what must hold between settings.
    ///
    /// # Errors
    /// Names the option to change.
    pub fn check(&self) -> Result<(), BenchError> {
        within("--connections", self.connections, 1, CONNECTIONS_MAX)?;
        within("--depth", self.depth, 1, DEPTH_MAX)?;
        within("--value-size", self.value_size, 0, VALUE_BYTES_MAX)?;
        if self.depth * self.value_size > BATCH_BYTES_MAX {
            let reason = format!(
                "{} values of {} bytes in flight on a connection are over {BATCH_BYTES_MAX} bytes",
                self.depth, self.value_size
            );
            return Err(BenchError::option("--depth", reason));
        }
        if self.threads == 0 || self.threads > self.connections {
            let reason = format!("each thread needs a connection; 1 to {}", self.connections);
            return Err(BenchError::option("--threads", reason));
        }
        if self.keys == 0 || self.keys > KEYS_MAX {
            return Err(BenchError::option("--keys", format!("must be 1 to {KEYS_MAX}")));
        }
        within("--key-size", self.key_size, key_bytes_min(self.keys), KEY_BYTES_MAX)?;
        if self.duration.is_zero() || self.duration > DURATION_MAX {
            let reason = format!("must be over 0 and at most {} seconds", DURATION_MAX.as_secs());
            return Err(BenchError::option("--duration", reason));
        }
        if self.timeout.is_zero() || self.timeout > DURATION_MAX {
            let reason = format!("must be over 0 and at most {} seconds", DURATION_MAX.as_secs());
            return Err(BenchError::option("--timeout", reason));
        }
        if self.locality != Locality::Any && self.protocol != Protocol::Native {
            let reason =
                "only native:// says which core a connection is on; use --target native://";
            return Err(BenchError::option("--keys-of", reason));
        }
        if self.operations == Some(0) {
            return Err(BenchError::option("--operations", "must be at least 1"));
        }
        Ok(())
    }

    /// The processor that thread number `index` is kept on.
    pub(super) fn cpu_of_thread(&self, index: usize) -> Option<usize> {
        let place = index.checked_rem(self.cpus.len())?;
        self.cpus.get(place).copied()
    }
}

pub(crate) fn within(
    option: &'static str,
    value: usize,
    min: usize,
    max: usize,
) -> Result<(), BenchError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(BenchError::option(option, format!("{value} is out of range; use {min} to {max}")))
}
