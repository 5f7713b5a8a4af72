//! What is kept of a command whose answer is encoded later.
//!
//! Its numbers are copied into a [`Form`], its key and flags behind each other into a buffer; the
//! value is not needed any more. Meta commands are kept as a command line in a normal form, because
//! their answer depends on all of it, and are parsed again.

use larder_protocol::memcached::{
    Arithmetic, Delete, DetailMode, Direction, GetRequest, KeyScratch, Limits, LogStreams,
    Malformed, Parsed, Parser, Request, Store, StoreVerb, Touch, WireKey,
};

use super::command::Command;
use super::dump::Dumping;
use super::statistics::Section;

/// A command that waits for its answer.
#[derive(Clone, Debug)]
pub struct Token {
    form: Form,
    bytes: Vec<u8>,
    /// How long the value was that came with it.
    value_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Get {
        with_cas: bool,
        new_exptime: Option<i32>,
    },
    Store {
        verb: StoreVerb,
        client_flags: u32,
        exptime: i32,
        cas: Option<u64>,
        noreply: bool,
    },
    Delete {
        noreply: bool,
    },
    Arithmetic {
        delta: u64,
        direction: Direction,
        noreply: bool,
    },
    Touch {
        exptime: i32,
        noreply: bool,
    },
    Drop {
        reply: &'static str,
        is_suppressed: bool,
    },
    Meta,
    Statistics(Section),
    Clear {
        noreply: bool,
    },
    /// A setting of the node.
    Setting {
        noreply: bool,
    },
    Detail(DetailMode),
    Watch(LogStreams),
    Dump(Dumping),
}

/// Limits that every command that was once accepted meets.
const WIDEST: Limits = Limits {
    key_bytes_max: larder_protocol::memcached::KEY_BYTES_MAX,
    item_bytes_max: usize::MAX,
    line_bytes_max: 1 << 20,
};

impl Token {
    /// What is to be kept of `command`.
    ///
    /// # Panics
    /// If its answer is known at once.
    pub fn new(command: &Command<'_>) -> Self {
        let mut token =
            Self { form: Form::Meta, bytes: Vec::new(), value_bytes: command.value_bytes() };
        let (form, key): (Form, &[u8]) = match *command {
            Command::Drop { key, reply, is_suppressed } => {
                token.bytes.extend_from_slice(key.bytes(&mut KeyScratch::default()));
                (Form::Drop { reply, is_suppressed }, &[])
            }
            Command::Line { .. } => panic!("{command:?} does not wait"),
            Command::Request(request) => match *request {
                Request::Get(GetRequest { key, with_cas, new_exptime }) => {
                    (Form::Get { with_cas, new_exptime }, key)
                }
                Request::Store(Store { verb, client_flags, exptime, cas, noreply, .. }) => {
                    (Form::Store { verb, client_flags, exptime, cas, noreply }, &[])
                }
                Request::Delete(Delete { noreply, .. }) => (Form::Delete { noreply }, &[]),
                Request::Arithmetic(Arithmetic { delta, direction, noreply, .. }) => {
                    (Form::Arithmetic { delta, direction, noreply }, &[])
                }
                Request::Touch(Touch { exptime, noreply, .. }) => {
                    (Form::Touch { exptime, noreply }, &[])
                }
                Request::FlushAll { noreply, .. } => (Form::Clear { noreply }, &[]),
                Request::Verbosity { noreply, .. } | Request::MemoryLimit { noreply, .. } => {
                    (Form::Setting { noreply }, &[])
                }
                Request::Detail(mode) => (Form::Detail(mode), &[]),
                Request::Watch(streams) => (Form::Watch(streams), &[]),
                Request::Dump(dump) => (Form::Dump(Dumping::new(&dump)), &[]),
                Request::Stats { arguments } => {
                    (Form::Statistics(Section::from_arguments(arguments)), &[])
                }
                _ => {
                    put_meta(request, &mut token.bytes);
                    (Form::Meta, &[])
                }
            },
        };
        token.form = form;
        token.bytes.extend_from_slice(key);
        token
    }

    /// The memory that the token has besides its own size, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// How long the value was that came with the command, in bytes.
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// The section that `stats` asked for.
    ///
    /// # Panics
    /// If it was another command.
    pub fn section(&self) -> Section {
        match self.form {
            Form::Statistics(section) => section,
            form => panic!("{form:?} is not stats"),
        }
    }

    /// How far a list has come.
    ///
    /// # Panics
    /// If it was another command.
    pub(super) fn dumping(&mut self) -> &mut Dumping {
        match &mut self.form {
            Form::Dump(dumping) => dumping,
            form => panic!("{form:?} lists nothing"),
        }
    }

    /// The command, as far as its answer needs it: without its value, and only retrievals have
    /// their key.
    pub fn parsed(&self) -> Parsed<'_> {
        let (key, value): (&[u8], &[u8]) = (&self.bytes, &[]);
        Parsed::Request(match self.form {
            Form::Meta => match Parser::new().next(&WIDEST, &self.bytes).parsed {
                Parsed::Request(request) => request,
                other => panic!("a command line in normal form was read as {other:?}"),
            },
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
                let drop_key = Some(WireKey::plain(key));
                return Parsed::Malformed(Malformed { reply, is_suppressed, drop_key });
            }
            Form::Clear { noreply } => Request::FlushAll { delay: None, noreply },
            Form::Statistics(_) => Request::Stats { arguments: &[] },
            Form::Setting { noreply } => Request::Verbosity { level: 0, noreply },
            Form::Detail(mode) => Request::Detail(mode),
            Form::Watch(streams) => Request::Watch(streams),
            Form::Dump(dumping) => Request::Dump(dumping.dump()),
        })
    }
}

/// Appends a meta command as a line, with an empty value where one belongs.
fn put_meta(request: &Request<'_>, bytes: &mut Vec<u8>) {
    let (verb, key, raw, has_value): (&[u8], &WireKey<'_>, &[u8], bool) = match request {
        Request::MetaGet(get) => (b"mg ", &get.key, get.flags.raw, false),
        Request::MetaSet(set) => (b"ms ", &set.key, set.flags.raw, true),
        Request::MetaDelete(delete) => (b"md ", &delete.key, delete.flags.raw, false),
        Request::MetaArithmetic(request) => (b"ma ", &request.key, request.flags.raw, false),
        Request::MetaDebug(debug) => {
            let raw: &[u8] = if debug.key.is_base64() { b"b" } else { b"" };
            (b"me ", &debug.key, raw, false)
        }
        other => panic!("{other:?} does not wait"),
    };
    bytes.reserve_exact(verb.len() + key.wire().len() + raw.len() + 7);
    bytes.extend_from_slice(verb);
    bytes.extend_from_slice(key.wire());
    bytes.extend_from_slice(if has_value { b" 0 " } else { b" " });
    bytes.extend_from_slice(raw);
    bytes.extend_from_slice(if has_value { b"\r\n\r\n" } else { b"\r\n" });
}
