//! Commands on their way: to another core, or waiting for the device.
//!
//! A command that cannot be done where its bytes were received is copied: its numbers into a
//! [`Description`], its bytes behind each other into a buffer. Meta commands travel as a command
//! line in a normal form, because their answer depends on all of it, and are parsed again.

use std::io::Write;

use larder_protocol::memcached::{
    Arithmetic, Delete, Direction, GetRequest, Limits, Parsed, Parser, Request, Store, StoreVerb,
    Touch, WireKey,
};

use super::command::Command;

/// A command without its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    form: Form,
    /// The key's length in bytes; what follows it is the value.
    key_bytes: u16,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Get { with_cas: bool, new_exptime: Option<i32> },
    Store { verb: StoreVerb, client_flags: u32, exptime: i32, cas: Option<u64>, noreply: bool },
    Delete { noreply: bool },
    Arithmetic { delta: u64, direction: Direction, noreply: bool },
    Touch { exptime: i32, noreply: bool },
    Drop { reply: &'static str, is_suppressed: bool },
    Meta,
}

/// Limits that every command that was once accepted meets.
const WIDEST: Limits = Limits {
    key_bytes_max: larder_protocol::memcached::KEY_BYTES_MAX,
    item_bytes_max: usize::MAX,
    line_bytes_max: 1 << 20,
};

/// Appends the bytes of `command` to `bytes`. Without the value, what is rebuilt is good for its
/// answer but not for its operation.
///
/// # Panics
/// If it is a request without a key.
pub fn describe(command: &Command<'_>, with_value: bool, bytes: &mut Vec<u8>) -> Description {
    let request = match command {
        Command::Keyed(request) => request,
        Command::Drop { key, reply, is_suppressed } => {
            let mut scratch = Default::default();
            let key = key.bytes(&mut scratch);
            let form = Form::Drop { reply, is_suppressed: *is_suppressed };
            return keyed(form, key, &[], bytes);
        }
    };
    match *request {
        Request::Get(GetRequest { key, with_cas, new_exptime }) => {
            keyed(Form::Get { with_cas, new_exptime }, key, &[], bytes)
        }
        Request::Store(Store { verb, key, client_flags, exptime, value, cas, noreply }) => {
            let form = Form::Store { verb, client_flags, exptime, cas, noreply };
            keyed(form, key, if with_value { value } else { &[] }, bytes)
        }
        Request::Delete(Delete { key, noreply }) => {
            keyed(Form::Delete { noreply }, key, &[], bytes)
        }
        Request::Arithmetic(Arithmetic { key, delta, direction, noreply }) => {
            keyed(Form::Arithmetic { delta, direction, noreply }, key, &[], bytes)
        }
        Request::Touch(Touch { key, exptime, noreply }) => {
            keyed(Form::Touch { exptime, noreply }, key, &[], bytes)
        }
        _ => meta(request, with_value, bytes),
    }
}

fn keyed(form: Form, key: &[u8], value: &[u8], bytes: &mut Vec<u8>) -> Description {
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(value);
    let key_bytes = u16::try_from(key.len()).expect("a key has at most 250 bytes");
    Description { form, key_bytes }
}

fn meta(request: &Request<'_>, with_value: bool, bytes: &mut Vec<u8>) -> Description {
    let (verb, key, raw, value): (&[u8], &WireKey<'_>, &[u8], Option<&[u8]>) = match request {
        Request::MetaGet(get) => (b"mg ", &get.key, get.flags.raw, None),
        Request::MetaSet(set) => {
            let value = if with_value { set.value } else { &[] };
            (b"ms ", &set.key, set.flags.raw, Some(value))
        }
        Request::MetaDelete(delete) => (b"md ", &delete.key, delete.flags.raw, None),
        Request::MetaArithmetic(request) => (b"ma ", &request.key, request.flags.raw, None),
        Request::MetaDebug(debug) => {
            let raw: &[u8] = if debug.key.is_base64() { b"b" } else { b"" };
            (b"me ", &debug.key, raw, None)
        }
        other => panic!("{other:?} has no key"),
    };
    bytes.extend_from_slice(verb);
    bytes.extend_from_slice(key.wire());
    bytes.push(b' ');
    if let Some(value) = value {
        write!(bytes, "{} ", value.len()).expect("a vector takes all bytes");
    }
    bytes.extend_from_slice(raw);
    bytes.extend_from_slice(b"\r\n");
    if let Some(value) = value {
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    Description { form: Form::Meta, key_bytes: 0 }
}

impl Description {
    /// The command, from the bytes that [`describe`] appended.
    pub fn command<'a>(&self, bytes: &'a [u8]) -> Command<'a> {
        if let Form::Meta = self.form {
            return match Parser::new().next(&WIDEST, bytes).parsed {
                Parsed::Request(request) => Command::Keyed(request),
                other => panic!("a command line in normal form was read as {other:?}"),
            };
        }
        let (key, value) = bytes.split_at(usize::from(self.key_bytes));
        Command::Keyed(match self.form {
            Form::Get { with_cas, new_exptime } => {
                Request::Get(GetRequest { key, with_cas, new_exptime })
            }
            Form::Store { verb, client_flags, exptime, cas, noreply } => {
                let store = Store { verb, key, client_flags, exptime, value, cas, noreply };
                Request::Store(store)
            }
            Form::Delete { noreply } => Request::Delete(Delete { key, noreply }),
            Form::Arithmetic { delta, direction, noreply } => {
                Request::Arithmetic(Arithmetic { key, delta, direction, noreply })
            }
            Form::Touch { exptime, noreply } => Request::Touch(Touch { key, exptime, noreply }),
            Form::Drop { reply, is_suppressed } => {
                return Command::Drop { key: WireKey::plain(key), reply, is_suppressed };
            }
            Form::Meta => unreachable!("handled above"),
        })
    }
}
