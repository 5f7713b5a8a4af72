//! Whose keys a connection asks for: of a node of several cores, those of the connection's own
//! core, those of the others, or all.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use larder_engine::key::{route_hash, shard_of_hash};

use larder_protocol::native::{ClientHello, HEADER_BYTES, HelloReply, NativeRequest, put_request};
use serde::Serialize;

/// Draws after which the key that was drawn last is taken whoever has it: of very few keys, none
/// may be with the core that is wanted.
const DRAWS_MAX: usize = 1000;

/// The longest hello that is read, in bytes.
const HELLO_BYTES_MAX: usize = 1 << 20;

/// The value of `--keys-of`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Locality {
    /// Any key, whichever core has it.
    #[default]
    Any,
    /// Keys of the core that the connection is on.
    Own,
    /// Keys of other cores.
    Other,
}

/// What a connection knows of where keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeysOf {
    locality: Locality,
    shards: u16,
    cores: u16,
    core: u16,
}

impl KeysOf {
    /// Every key.
    pub(super) const ANY: Self = Self { locality: Locality::Any, shards: 1, cores: 1, core: 0 };

    /// Asks the node at the other end of a blocking `stream` where it is; that it did not answer
    /// within `timeout`, or has no key of the kind, is an error.
    pub(super) fn ask(
        locality: Locality,
        stream: &mut TcpStream,
        timeout: Duration,
    ) -> io::Result<Self> {
        if locality == Locality::Any {
            return Ok(Self::ANY);
        }
        stream.set_read_timeout(Some(timeout))?;
        let hello = hello(stream)?;
        stream.set_read_timeout(None)?;
        let HelloReply { shards, cores, core, .. } = hello;
        let known = Self { locality, shards, cores, core };
        let has_some = cores > 0 && core < cores && (0..shards).any(|shard| known.wants(shard));
        has_some.then_some(known).ok_or_else(|| {
            let keys = if locality == Locality::Own { "own" } else { "other" };
            io::Error::other(format!(
                "--keys-of {keys}: core {core} of {cores} has no such key of {shards} shards"
            ))
        })
    }

    fn wants(&self, shard: u16) -> bool {
        match self.locality {
            Locality::Any => true,
            Locality::Own => shard % self.cores == self.core,
            Locality::Other => shard % self.cores != self.core,
        }
    }

    /// Draws numbers until the key of one, as `append` writes it, is of the wanted kind.
    pub(super) fn draw(
        &self,
        scratch: &mut Vec<u8>,
        mut draw: impl FnMut() -> u64,
        append: impl Fn(u64, &mut Vec<u8>),
    ) -> u64 {
        let mut number = draw();
        if self.locality == Locality::Any {
            return number;
        }
        for _ in 1..DRAWS_MAX {
            scratch.clear();
            append(number, scratch);
            if self.wants(shard_of_hash(route_hash(scratch), self.shards)) {
                break;
            }
            number = draw();
        }
        number
    }
}

fn hello(stream: &mut TcpStream) -> io::Result<HelloReply> {
    let mut request = Vec::new();
    let hello = ClientHello { version_min: 1, version_max: 1, name: "larder bench" };
    put_request(&mut request, 1, 0, false, &NativeRequest::Hello(hello));
    stream.write_all(&request)?;
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let len = u32::from_le_bytes(header[4..8].try_into().expect("four bytes")) as usize;
    let invalid = |text: String| io::Error::new(ErrorKind::InvalidData, text);
    if len > HELLO_BYTES_MAX {
        return Err(invalid(format!("a hello of {len} bytes")));
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    HelloReply::decode(&body).map_err(|error| invalid(format!("hello: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(locality: Locality) -> KeysOf {
        KeysOf { locality, shards: 4, cores: 2, core: 1 }
    }

    #[test]
    fn the_keys_are_of_the_wanted_core() {
        let append = |number: u64, out: &mut Vec<u8>| out.extend(format!("key:{number}").bytes());
        for (locality, wanted) in [(Locality::Own, 1), (Locality::Other, 0)] {
            let mut numbers = 0..;
            for _ in 0..1000 {
                let draw = || numbers.next().expect("numbers do not end");
                let number = of(locality).draw(&mut Vec::new(), draw, append);
                let shard = shard_of_hash(route_hash(format!("key:{number}").as_bytes()), 4);
                assert_eq!(shard % 2, wanted, "{locality:?}, key:{number}");
            }
        }
    }

    #[test]
    fn one_key_that_is_elsewhere_is_asked_for_all_the_same() {
        let mut draws = 0;
        let draw = || {
            draws += 1;
            7
        };
        let nothing = KeysOf { cores: 1, core: 1, ..of(Locality::Own) };
        assert_eq!(nothing.draw(&mut Vec::new(), draw, |_, _| {}), 7);
        assert_eq!(draws, DRAWS_MAX);
    }
}
