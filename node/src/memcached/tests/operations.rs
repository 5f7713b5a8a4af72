use larder_engine::operation::{Arithmetic, Delete, EXPIRED, Operation, Read, Store, StoreMode};

use super::super::command::flush_time;
use super::*;
use crate::counters::Kind;

const NOW: u32 = 1_800_000_000;

const READ: Read = Read {
    value: true,
    expiry: None,
    vivify: None,
    recache_before: None,
    leases: false,
    quiet: false,
    version: None,
};
const META_READ: Read = Read { value: false, leases: true, ..READ };

const STORE: Store<'_> = Store {
    mode: StoreMode::Set,
    value: b"v",
    client_flags: 0,
    expiry: 0,
    compare: None,
    invalidate: false,
    is_large: false,
    vivify: None,
    version: None,
};

const ADD_1: Arithmetic = Arithmetic {
    delta: 1,
    decrement: false,
    compare: None,
    vivify: None,
    expiry: None,
    version: None,
};

#[test]
fn reads_and_their_expiries() {
    let get = Kind::Get { touches: false };
    let touching = Kind::Get { touches: true };
    for (line, kind, read) in [
        ("get k\r\n", get, READ),
        ("gets k\r\n", get, READ),
        ("gat 10 k\r\n", touching, Read { expiry: Some(NOW + 10), ..READ }),
        ("gats 0 k\r\n", touching, Read { expiry: Some(0), ..READ }),
        ("gat -1 k\r\n", touching, Read { expiry: Some(EXPIRED), ..READ }),
        ("touch k 5\r\n", Kind::Touch, Read { value: false, expiry: Some(NOW + 5), ..READ }),
        ("mg k\r\n", get, META_READ),
        ("mg k v\r\n", get, Read { value: true, ..META_READ }),
        ("mg k u\r\n", get, Read { quiet: true, ..META_READ }),
        ("mg k T7\r\n", touching, Read { expiry: Some(NOW + 7), ..META_READ }),
        ("mg k N30 E9\r\n", get, Read { vivify: Some(NOW + 30), version: Some(9), ..META_READ }),
        ("mg k R30\r\n", get, Read { recache_before: Some(NOW + 30), ..META_READ }),
        ("mg k R0\r\n", get, META_READ),
        ("mg k R-1\r\n", get, META_READ),
        ("me k\r\n", Kind::Other, Read { value: false, quiet: true, ..READ }),
    ] {
        let parsed = parsed(line);
        let command = Command::of(&parsed);
        assert_eq!(command.operation(NOW), Operation::Read(read), "{line:?}");
        assert_eq!(command.kind(), kind, "{line:?}");
    }
}

#[test]
fn stores_in_every_mode() {
    let mode = |mode| Store { mode, ..STORE };
    for (line, kind, store) in [
        ("set k 0 0 1\r\nv\r\n", Kind::Store, STORE),
        (
            "set k 7 60 1\r\nv\r\n",
            Kind::Store,
            Store { client_flags: 7, expiry: NOW + 60, ..STORE },
        ),
        ("set k 0 -1 1\r\nv\r\n", Kind::Store, Store { expiry: EXPIRED, ..STORE }),
        ("add k 0 0 1\r\nv\r\n", Kind::Store, mode(StoreMode::Add)),
        ("replace k 0 0 1\r\nv\r\n", Kind::Store, mode(StoreMode::Replace)),
        ("append k 0 0 1\r\nv\r\n", Kind::Store, mode(StoreMode::Append)),
        ("prepend k 0 0 1\r\nv\r\n", Kind::Store, mode(StoreMode::Prepend)),
        ("cas k 0 0 1 5\r\nv\r\n", Kind::CompareAndStore, Store { compare: Some(5), ..STORE }),
        ("ms k 1\r\nv\r\n", Kind::Store, STORE),
        (
            "ms k 1 T9 F3 E4\r\nv\r\n",
            Kind::Store,
            Store { expiry: NOW + 9, client_flags: 3, version: Some(4), ..STORE },
        ),
        (
            "ms k 1 C5 I\r\nv\r\n",
            Kind::CompareAndStore,
            Store { compare: Some(5), invalidate: true, ..STORE },
        ),
        (
            "ms k 1 MA N0\r\nv\r\n",
            Kind::Store,
            Store { mode: StoreMode::Append, vivify: Some(0), ..STORE },
        ),
        ("ms k 1 ME\r\nv\r\n", Kind::Store, mode(StoreMode::Add)),
    ] {
        let parsed = parsed(line);
        let command = Command::of(&parsed);
        assert_eq!(command.operation(NOW), Operation::Store(store), "{line:?}");
        assert_eq!(command.kind(), kind, "{line:?}");
    }
    let drops = |line| Command::of(&parsed(line)).drops_old_item();
    assert!(drops("set k 0 0 1\r\nv\r\n") && drops("ms k 1 MA\r\nv\r\n"));
    assert!(!drops("add k 0 0 1\r\nv\r\n"));
}

#[test]
fn deletes() {
    for (line, delete) in [
        ("delete k\r\n", Delete::default()),
        ("md k\r\n", Delete::default()),
        ("md k C3\r\n", Delete { compare: Some(3), ..Delete::default() }),
        (
            "md k I T30 E8\r\n",
            Delete {
                invalidate: true,
                expiry: Some(NOW + 30),
                version: Some(8),
                ..Delete::default()
            },
        ),
        ("md k x\r\n", Delete { clear_value: true, ..Delete::default() }),
    ] {
        let parsed = parsed(line);
        let command = Command::of(&parsed);
        assert_eq!(command.operation(NOW), Operation::Delete(delete), "{line:?}");
        assert_eq!(command.kind(), Kind::Delete);
    }
    let too_large = format!("set k 0 0 {}\r\n", 1 << 20);
    let operation = Operation::Delete(Delete::default());
    assert_eq!(Command::of(&parsed(&too_large)).operation(NOW), operation);
}

#[test]
fn arithmetic() {
    for (line, kind, arithmetic) in [
        ("incr k 3\r\n", Kind::Increment, Arithmetic { delta: 3, ..ADD_1 }),
        ("decr k 1\r\n", Kind::Decrement, Arithmetic { decrement: true, ..ADD_1 }),
        ("ma k\r\n", Kind::Increment, ADD_1),
        ("ma k MD D5\r\n", Kind::Decrement, Arithmetic { delta: 5, decrement: true, ..ADD_1 }),
        (
            "ma k N60 J13 C2 E3 T9\r\n",
            Kind::Increment,
            Arithmetic {
                vivify: Some((13, NOW + 60)),
                compare: Some(2),
                version: Some(3),
                expiry: Some(NOW + 9),
                ..ADD_1
            },
        ),
    ] {
        let parsed = parsed(line);
        let command = Command::of(&parsed);
        assert_eq!(command.operation(NOW), Operation::Arithmetic(arithmetic), "{line:?}");
        assert_eq!(command.kind(), kind, "{line:?}");
    }
}

#[test]
fn flush_delays() {
    assert_eq!(flush_time(None, NOW), None);
    assert_eq!(flush_time(Some(0), NOW), None);
    assert_eq!(flush_time(Some(-3), NOW), None);
    assert_eq!(flush_time(Some(1), NOW), Some(NOW));
    assert_eq!(flush_time(Some(10), NOW), Some(NOW + 9));
}

#[test]
fn noreply_and_keys() {
    let mut scratch = Default::default();
    assert_eq!(Command::of(&parsed("mg Zm9v b v\r\n")).key(&mut scratch), b"foo");
    assert_eq!(Command::of(&parsed("touch abc 1\r\n")).key(&mut scratch), b"abc");
    for line in ["delete k noreply\r\n", "incr k 1 noreply\r\n", "touch k 1 noreply\r\n"] {
        assert!(Command::of(&parsed(line)).is_noreply(), "{line:?}");
    }
    assert!(!Command::of(&parsed("mg k q\r\n")).is_noreply(), "quiet commands are told of errors");
    assert!(matches!(request("get k\r\n"), Request::Get(_)));
}
