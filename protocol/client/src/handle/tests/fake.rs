//! A node that is a thread of the test, and does what the test says.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use larder_protocol::native::reply::{self, NativeItem, ReplyHead};
use larder_protocol::native::{
    HelloReply, NativeLimits, NativeParsed, NativeParser, NativeRequest, NativeStatus, RequestHead,
    not_found, put_found,
};

/// A node. It ends when it is dropped, and closes its connections.
pub(super) struct Fake {
    pub address: String,
    /// Connections that it has accepted.
    pub accepted: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

/// One connection of it.
pub(super) struct Peer {
    pub stream: TcpStream,
    /// Which one it is, counted from 0.
    pub number: usize,
    pub hello: HelloReply,
    input: Vec<u8>,
    /// Reads that have brought something.
    pub reads: usize,
}

impl Fake {
    /// A node whose connections `serve` looks after, each in a thread.
    pub(super) fn start(serve: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", serve)
    }

    pub(super) fn start_at(at: &str, serve: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(reserved(at)).expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (accepted, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let streams = Arc::new(Mutex::new(Vec::new()));
        let fake = Self { address, accepted, is_over, streams };
        let (accepted, is_over) = (Arc::clone(&fake.accepted), Arc::clone(&fake.is_over));
        let (streams, serve) = (Arc::clone(&fake.streams), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a client");
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let number = accepted.fetch_add(1, Ordering::SeqCst);
                streams.lock().expect("whole").push(stream.try_clone().expect("a descriptor"));
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || {
                    let (hello, input) = (hello(), Vec::new());
                    serve(Peer { stream, number, hello, input, reads: 0 });
                });
            }
        });
        fake
    }

    /// A node that answers everything at once, and keeps values.
    pub(super) fn good() -> Self {
        let store = Store::default();
        Self::start(move |mut peer| {
            peer.each(|head, request, out| store.answer(head, request, out));
        })
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        for stream in self.streams.lock().expect("whole").iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// This address, or with port 0 one that is free; which no other test gets as long as this process
/// lives. Clients of a node that has ended go on looking for it, and would meet another one.
fn reserved(at: &str) -> SocketAddr {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a descriptor");
    // A socket that does not listen keeps nobody from it who says the same.
    sockopt::set_socket_reuseaddr(&socket, true).expect("an option");
    bind(&socket, &at.parse::<SocketAddr>().expect("an address")).expect("a port");
    let address = getsockname(&socket).expect("it is bound").try_into().expect("of the internet");
    std::mem::forget(socket);
    address
}

/// What a node of one core says of itself.
pub(super) fn hello() -> HelloReply {
    HelloReply {
        version: 1,
        software: "fake".to_owned(),
        shards: 1,
        cores: 1,
        value_bytes_max: 1 << 20,
        body_bytes_max: (1 << 20) + 4096,
        requests_max: 1024,
        ..HelloReply::default()
    }
}

/// Whether the connection goes on.
pub(super) type GoesOn = bool;

impl Peer {
    /// Answers each request with what `answer` appends, but for a hello, which is answered as
    /// `hello` says, until the client goes.
    pub(super) fn each(
        &mut self,
        mut answer: impl FnMut(RequestHead, &NativeRequest<'_>, &mut Vec<u8>) -> GoesOn,
    ) {
        while self.some(&mut answer) {}
    }

    /// The same for the requests of one read.
    pub(super) fn some(
        &mut self,
        answer: &mut impl FnMut(RequestHead, &NativeRequest<'_>, &mut Vec<u8>) -> GoesOn,
    ) -> GoesOn {
        self.answer(answer) && self.fill()
    }

    fn answer(
        &mut self,
        answer: &mut impl FnMut(RequestHead, &NativeRequest<'_>, &mut Vec<u8>) -> GoesOn,
    ) -> GoesOn {
        let limits = NativeLimits { value_bytes_max: 64 << 20 };
        let mut parser = NativeParser::default();
        let (mut out, mut goes_on, mut consumed) = (Vec::new(), true, 0);
        while goes_on {
            let step = parser.next(&limits, &self.input[consumed..]);
            consumed += step.consumed;
            match step.parsed {
                NativeParsed::Request(head, NativeRequest::Hello(_)) => {
                    let body = self.hello.encode();
                    let put = |out: &mut Vec<u8>| out.extend_from_slice(&body);
                    reply::put(&mut out, reply_head(head), NativeStatus::Ok, put);
                }
                NativeParsed::Request(head, request) => goes_on = answer(head, &request, &mut out),
                NativeParsed::NeedMore { .. } => break,
                other => panic!("{other:?}"),
            }
        }
        self.input.drain(..consumed);
        if self.stream.write_all(&out).is_err() || !goes_on {
            let _ = self.stream.shutdown(Shutdown::Both);
            return false;
        }
        true
    }

    /// Answers the greeting alone, and reads on.
    pub(super) fn greet(&mut self) {
        self.greet_and(|| ());
    }

    /// Answers the greeting alone, and then does something before it reads on.
    pub(super) fn greet_and(&mut self, then: impl FnOnce()) {
        self.fill();
        self.answer(&mut |_, request, _| panic!("{request:?}"));
        then();
        self.fill();
    }

    fn fill(&mut self) -> GoesOn {
        let mut chunk = [0; 65_536];
        let read = self.stream.read(&mut chunk).unwrap_or(0);
        self.input.extend_from_slice(&chunk[..read]);
        self.reads += 1;
        read > 0
    }
}

pub(super) fn reply_head(head: RequestHead) -> ReplyHead {
    let RequestHead { id, opcode, has_checksum, .. } = head;
    ReplyHead { id, opcode: opcode as u8, has_checksum, hops: 0 }
}

/// Shows an item.
pub(super) fn show(head: RequestHead, value: &[u8], out: &mut Vec<u8>) {
    reply::put_item(out, reply_head(head), &item(value));
}

pub(super) fn item(value: &[u8]) -> NativeItem<'_> {
    let value_len = value.len() as u32;
    NativeItem { version: 1, client_flags: 0, expiry: 0, value_len, value }
}

pub(super) fn say(head: RequestHead, status: NativeStatus, out: &mut Vec<u8>) {
    reply::put(out, reply_head(head), status, |_| ());
}

/// Values by their record ids.
#[derive(Clone, Default)]
pub(super) struct Store {
    pub values: Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>,
}

impl Store {
    pub(super) fn answer(
        &self,
        head: RequestHead,
        request: &NativeRequest<'_>,
        out: &mut Vec<u8>,
    ) -> GoesOn {
        let mut values = self.values.lock().expect("whole");
        match request {
            NativeRequest::Ping(_) => say(head, NativeStatus::Ok, out),
            NativeRequest::Get(get) => match values.get(get.key.record) {
                Some(value) => show(head, value, out),
                None => say(head, NativeStatus::Absent, out),
            },
            NativeRequest::Put(put) => {
                values.insert(put.key.record.to_vec(), put.value.to_vec());
                reply::put_version(out, reply_head(head), 1);
            }
            NativeRequest::Delete(delete) => match values.remove(delete.key.record) {
                Some(_) => say(head, NativeStatus::Ok, out),
                None => say(head, NativeStatus::Absent, out),
            },
            NativeRequest::MultiGet(multi) => {
                reply::put(out, reply_head(head), NativeStatus::Ok, |out| {
                    for get in multi.gets() {
                        match values.get(get.key.record) {
                            Some(value) => put_found(out, &item(value)),
                            None => out.extend_from_slice(&not_found(NativeStatus::Absent)),
                        }
                    }
                });
            }
            other => panic!("{other:?}"),
        }
        true
    }
}
