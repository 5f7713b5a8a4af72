//! What attackers send, and what they do when it is sent.

use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;

use super::super::data::{KeyFormat, ValueFormat};

/// How many large values there are for attackers to ask for, and how long each is, in bytes.
pub(super) const LARGE_VALUES: u64 = 400;
pub(super) const LARGE_BYTES: usize = 1_000_000;

/// Large values have the keys from here on, which no polite client uses.
pub(super) const LARGE_KEY_FIRST: u64 = 1_000_000;

/// The length of all keys.
pub(super) const KEY_BYTES: usize = 16;

/// Requests that one attacker pipelines.
const VALUES_PIPELINED: u64 = 1000;
const STORES_PIPELINED: u64 = 2000;

/// How long values are asked for before the attacker leaves, in the attacks that come back.
const VALUES_HELD: Duration = Duration::from_millis(20);

/// What attackers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attack {
    /// 2,000 connections send all but the last bytes of a `set` of 1 MB, and stop
    Partial,
    /// The same, and each connection begins again when it has sent that or is closed
    PartialAgain,
    /// 16 connections send 1,000 `mg` of values of 1 MB and do not read
    Values,
    /// The same, and each connection is reset after 20 ms and begins again
    ValuesAgain,
    /// 64 connections send 2,000 `set` of 1,000 bytes and do not read
    Stores,
    /// The same, and each connection is reset when it has sent that, and begins again
    StoresAgain,
    /// 2,000 connections send half a command, close and connect again
    Churn,
    /// 256 connections send `set` of 500,000 bytes without end, more than can be taken in at a time
    Grants,
    /// 256 connections ask for values of 1 MB without end, and read them
    Reads,
}

/// What a connection does when all of its script is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// It stays as it is.
    Stay,
    /// It is closed after so long, and another one begins.
    BeginAgain(Duration),
    /// It sends the same again.
    Repeat,
}

/// An attack in detail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) connections: usize,
    pub(super) then: Then,
    /// Whether answers are read, and thrown away.
    pub(super) reads: bool,
}

impl Attack {
    pub(super) fn plan(self) -> Plan {
        let again = Then::BeginAgain(Duration::ZERO);
        let (connections, then) = match self {
            Self::Partial => (2000, Then::Stay),
            Self::PartialAgain | Self::Churn => (2000, again),
            Self::Values => (16, Then::Stay),
            Self::ValuesAgain => (16, Then::BeginAgain(VALUES_HELD)),
            Self::Stores => (64, Then::Stay),
            Self::StoresAgain => (64, again),
            Self::Grants | Self::Reads => (256, Then::Repeat),
        };
        Plan { connections, then, reads: then == Then::Repeat }
    }

    /// Whether the large values must be there.
    pub(super) fn needs_values(self) -> bool {
        matches!(self, Self::Values | Self::ValuesAgain | Self::Reads)
    }

    /// What connection number `connection` of the attack sends.
    pub(super) fn script(self, connection: usize) -> Vec<u8> {
        let number = connection as u64;
        match self {
            Self::Partial | Self::PartialAgain => {
                let mut bytes = stores(LARGE_BYTES, [number]);
                bytes.truncate(bytes.len() - 3);
                bytes
            }
            Self::Values | Self::ValuesAgain | Self::Reads => asks(number * 25),
            Self::Stores | Self::StoresAgain => {
                let first = 2 * LARGE_KEY_FIRST + number * STORES_PIPELINED;
                stores(1000, first..first + STORES_PIPELINED)
            }
            Self::Churn => b"set half 0 0 1000\r\nabc".to_vec(),
            Self::Grants => stores(500_000, [LARGE_KEY_FIRST + LARGE_VALUES + number]),
        }
    }

    /// The scripts of the connections from `first` on, every `step`th; equal ones are there once.
    pub(super) fn scripts(self, first: usize, step: usize) -> Vec<Arc<[u8]>> {
        let numbers = (first..self.plan().connections).step_by(step);
        if matches!(self, Self::Partial | Self::PartialAgain | Self::Churn) {
            let shared: Arc<[u8]> = self.script(first).into();
            return numbers.map(|_| Arc::clone(&shared)).collect();
        }
        numbers.map(|number| self.script(number).into()).collect()
    }
}

/// The bytes that store the values of these keys.
pub(super) fn stores(value_bytes: usize, keys: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let (format, values) = (KeyFormat::new(KEY_BYTES), ValueFormat::new(value_bytes));
    let mut out = Vec::new();
    for key in keys {
        out.extend_from_slice(b"set ");
        format.append(key, &mut out);
        out.extend_from_slice(format!(" 0 0 {value_bytes}\r\n").as_bytes());
        values.append(key, &mut out);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Asks for large values, beginning with number `first`.
fn asks(first: u64) -> Vec<u8> {
    let format = KeyFormat::new(KEY_BYTES);
    let mut out = Vec::new();
    for number in first..first + VALUES_PIPELINED {
        out.extend_from_slice(b"mg ");
        format.append(LARGE_KEY_FIRST + number % LARGE_VALUES, &mut out);
        out.extend_from_slice(b" v\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_as_long_as_the_attack_says() {
        let lines = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
        assert_eq!(lines(&Attack::Values.script(3)), VALUES_PIPELINED);
        let one = stores(1000, [7]).len();
        assert_eq!(Attack::Stores.script(3).len() as u64, STORES_PIPELINED * one as u64);
        let whole = stores(LARGE_BYTES, [0]);
        assert_eq!(Attack::Partial.script(0), whole[..whole.len() - 3]);
        assert!(whole.ends_with(b"\r\n") && !Attack::Partial.script(0).ends_with(b"\r\n"));
    }

    #[test]
    fn every_connection_has_its_script_in_one_thread() {
        for attack in Attack::value_variants() {
            let count = |first| attack.scripts(first, 3).len();
            assert_eq!(count(0) + count(1) + count(2), attack.plan().connections, "{attack:?}");
        }
    }
}
