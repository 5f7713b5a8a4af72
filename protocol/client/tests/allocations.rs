//! What a read over the handle allocates: its value.

#![allow(unsafe_code, reason = "an allocator that counts is an allocator")]
#![allow(clippy::disallowed_methods, reason = "the node in this test is a thread")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};

use larder_client::{Calls, Client, ItemRef};
use larder_protocol::native::reply::{self, NativeItem, ReplyHead};
use larder_protocol::native::{
    HelloReply, NativeLimits, NativeParsed, NativeParser, NativeRequest, NativeStatus,
};

/// Allocations of all threads but the node.
static BY_CLIENT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_NODE: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

impl Counting {
    fn count() {
        // A thread that is ending counts as the client's.
        if !IS_NODE.try_with(Cell::get).unwrap_or(false) {
            BY_CLIENT.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// SAFETY: all calls go to the system's allocator with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promises are the system allocator's demands.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Answers each read with 1,000 bytes, until the client goes.
fn serve(mut stream: TcpStream) {
    IS_NODE.set(true);
    let mut parser = NativeParser::default();
    let (limits, mut input) = (NativeLimits { value_bytes_max: 1 << 20 }, Vec::new());
    let hello =
        HelloReply { version: 1, shards: 1, cores: 1, requests_max: 1024, ..HelloReply::default() };
    let mut chunk = vec![0; 65_536];
    loop {
        let (mut out, mut consumed) = (Vec::new(), 0);
        loop {
            let step = parser.next(&limits, &input[consumed..]);
            consumed += step.consumed;
            let NativeParsed::Request(head, request) = step.parsed else { break };
            let head =
                ReplyHead { id: head.id, opcode: head.opcode as u8, has_checksum: false, hops: 0 };
            match request {
                NativeRequest::Hello(_) => reply::put(&mut out, head, NativeStatus::Ok, |out| {
                    out.extend_from_slice(&hello.encode());
                }),
                _ => {
                    let value = &[b'v'; 1000];
                    let (version, client_flags, expiry, value_len) = (1, 0, 0, 1000);
                    let item = NativeItem { version, client_flags, expiry, value_len, value };
                    reply::put_item(&mut out, head, &item);
                }
            }
        }
        input.drain(..consumed);
        let read = stream.write_all(&out).and_then(|()| stream.read(&mut chunk)).unwrap_or(0);
        if read == 0 {
            return;
        }
        input.extend_from_slice(&chunk[..read]);
    }
}

#[test]
fn a_read_allocates_its_value_alone() {
    const DEPTH: u64 = 16;
    const ROUNDS: u64 = 200;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || listener.incoming().for_each(|client| serve(client.expect("it"))));
    let client = Client::connect(address).expect("a client");
    let key = ItemRef::of_record("record").expect("a key");
    let read = || {
        let calls: Calls<_> = (0..DEPTH).map(|_| client.get(key)).collect();
        for item in calls.wait() {
            assert_eq!(item.expect("a reply").expect("an item").value.len(), 1000);
        }
    };
    // The connection is made, and what is used again has its size.
    (0..20).for_each(|_| read());
    let before = BY_CLIENT.load(Ordering::Relaxed);
    (0..ROUNDS).for_each(|_| read());
    let allocations = BY_CLIENT.load(Ordering::Relaxed) - before;
    let of_reads = DEPTH * ROUNDS;
    // Besides those of its reads a round has the list of its calls, the list of their results, and
    // for each read of the socket what is waited for, and what is handed over.
    let of_rounds = allocations.saturating_sub(of_reads) as f64 / ROUNDS as f64;
    println!("{allocations} allocations, {of_rounds:.1} a round besides those of its reads");
    assert!(allocations >= of_reads && of_rounds <= 12.0, "{of_rounds:.1} a round");
}
