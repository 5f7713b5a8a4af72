//! Requests as bytes.

use super::data::{KeyFormat, ValueFormat};
use super::{Protocol, Settings, native};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Get,
    Set,
}

/// One request: an operation on the key of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) operation: Operation,
    pub(super) key: u64,
}

/// Writes requests; all that does not depend on the key is prepared once.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    is_native: bool,
    keys: KeyFormat,
    values: ValueFormat,
    get: [Vec<u8>; 2],
    set: [Vec<u8>; 2],
}

impl Encoder {
    pub(super) fn new(settings: &Settings) -> Self {
        let size = settings.value_size;
        let around = |before: &str, after: String| [before.as_bytes().to_vec(), after.into_bytes()];
        let (get, set) = match settings.protocol {
            Protocol::Meta => {
                (around("mg ", " v\r\n".to_owned()), around("ms ", format!(" {size}\r\n")))
            }
            Protocol::Text => {
                (around("get ", "\r\n".to_owned()), around("set ", format!(" 0 0 {size}\r\n")))
            }
            Protocol::Native => Default::default(),
        };
        let (keys, values) = (KeyFormat::new(settings.key_size), ValueFormat::new(size));
        Self { is_native: settings.protocol == Protocol::Native, keys, values, get, set }
    }

    /// Appends the bytes of the request with this number in its batch.
    pub(super) fn append(&self, number: u64, request: Request, out: &mut Vec<u8>) {
        if self.is_native {
            return self.append_native(number, request, out);
        }
        let [before, after] = match request.operation {
            Operation::Get => &self.get,
            Operation::Set => &self.set,
        };
        out.extend_from_slice(before);
        self.keys.append(request.key, out);
        out.extend_from_slice(after);
        if request.operation == Operation::Set {
            self.values.append(request.key, out);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Appends the key of a number.
    pub(super) fn append_key(&self, key: u64, out: &mut Vec<u8>) {
        self.keys.append(key, out);
    }

    fn append_native(&self, number: u64, request: Request, out: &mut Vec<u8>) {
        let (mut key, mut value) = (Vec::with_capacity(32), Vec::new());
        self.keys.append(request.key, &mut key);
        if request.operation == Operation::Set {
            self.values.append(request.key, &mut value);
        }
        native::append(number, request.operation, &key, &value, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(protocol: Protocol, operation: Operation) -> Vec<u8> {
        let address = "127.0.0.1:1".parse().expect("an address");
        let settings =
            Settings { protocol, key_size: 5, value_size: 9, ..Settings::against(address) };
        let mut out = Vec::new();
        Encoder::new(&settings).append(0, Request { operation, key: 42 }, &mut out);
        out
    }

    #[test]
    fn requests_are_what_the_protocol_says() {
        assert_eq!(encoded(Protocol::Meta, Operation::Get), b"mg k0042 v\r\n");
        assert_eq!(encoded(Protocol::Text, Operation::Get), b"get k0042\r\n");
        let mut value = Vec::new();
        ValueFormat::new(9).append(42, &mut value);
        let meta = [b"ms k0042 9\r\n", &value[..], b"\r\n"].concat();
        assert_eq!(encoded(Protocol::Meta, Operation::Set), meta);
        let text = [b"set k0042 0 0 9\r\n", &value[..], b"\r\n"].concat();
        assert_eq!(encoded(Protocol::Text, Operation::Set), text);
    }
}
