//! A GET that is answered from RAM allocates nothing on the core's thread.

#![allow(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};

use larder::config::{Config, Size};

/// Allocations on threads that are named as cores are.
static ON_CORES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this thread is a core; `None` until it is known.
    static IS_CORE: Cell<Option<bool>> = const { Cell::new(None) };
}

struct Counting;

impl Counting {
    fn count() {
        let is_core = IS_CORE.try_with(|is_core| {
            is_core.get().unwrap_or_else(|| {
                // Asking for the name may allocate; that is not counted, and asks nothing.
                is_core.set(Some(false));
                let thread = std::thread::current();
                let answer = thread.name().map(|name| name.starts_with("larder-core-"));
                is_core.set(answer);
                answer.unwrap_or(false)
            })
        });
        if is_core == Ok(true) {
            ON_CORES.fetch_add(1, Ordering::Relaxed);
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
static ALLOCATOR: Counting = Counting;

const KEYS: usize = 100;
const PIPELINE: usize = 100;
const ROUNDS: usize = 100;

#[test]
#[allow(clippy::disallowed_methods, reason = "the test waits for the core to calm down")]
fn a_get_that_is_answered_from_ram_allocates_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = Config {
        data_dir: directory.path().join("data"),
        memory: Size(128 << 20),
        memcached_port: 0,
        native_port: 0,
        admin_port: 0,
        cores: Some(1),
        calibrate: false,
        ..Config::default()
    };
    let node = larder::launch::Launcher::default().start(&config).expect("the node starts");
    let mut client =
        TcpStream::connect(node.addresses().memcached.expect("a port")).expect("it accepts");
    let (mut requests, mut expected) = (String::new(), String::new());
    for key in 0..KEYS {
        let value = format!("value of key {key}").repeat(20);
        let len = value.len();
        exchange(&mut client, &format!("set key{key} 0 0 {len}\r\n{value}\r\n"), "STORED\r\n");
        if key < PIPELINE / 2 {
            requests.push_str(&format!("get key{key}\r\nmg key{key} v\r\n"));
            expected.push_str(&format!("VALUE key{key} 0 {len}\r\n{value}\r\nEND\r\n"));
            expected.push_str(&format!("VA {len}\r\n{value}\r\n"));
        }
    }
    assert!(ON_CORES.load(Ordering::Relaxed) > 0, "the counting works");
    // Buffers reach their sizes, and the flushes of the writes end.
    for _ in 0..ROUNDS {
        exchange(&mut client, &requests, &expected);
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    let before = ON_CORES.load(Ordering::Relaxed);
    for _ in 0..ROUNDS {
        exchange(&mut client, &requests, &expected);
    }
    let allocated = ON_CORES.load(Ordering::Relaxed) - before;
    assert_eq!(allocated, 0, "allocations for {} GETs", ROUNDS * PIPELINE);
}

fn exchange(client: &mut TcpStream, requests: &str, expected: &str) {
    client.write_all(requests.as_bytes()).expect("it reads");
    let mut received = vec![0; expected.len()];
    client.read_exact(&mut received).expect("it answers");
    assert!(received == expected.as_bytes(), "a wrong answer");
}
