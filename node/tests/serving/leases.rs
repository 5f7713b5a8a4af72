//! Leases over the native port.

#![allow(clippy::disallowed_methods, reason = "the client's thread is not the node's")]

use std::time::{Duration, Instant};

use larder_client::{ClientConnection, ClientError, ItemRange, ItemsOf, PageLimits};
use larder_protocol::native::{
    BeginLease, GetItems, ItemKey, LeaseOf, NativeRequest, NativeStatus, ScanItems,
};

use super::client::TestNode;
use super::native::{NativeClient, SET, key, put};
use super::pages::of_record;

const TIMEOUT: Duration = Duration::from_secs(20);

fn connect(node: &TestNode) -> ClientConnection {
    ClientConnection::open(&node.node.addresses().native.to_string(), TIMEOUT).expect("it accepts")
}

fn of_lease(lease: u64) -> PageLimits {
    PageLimits { items_max: 7, lease, ..PageLimits::default() }
}

/// The values of a record's items, or the status that says why there are none.
fn values(node: &mut ClientConnection, lease: u64) -> Result<Vec<Vec<u8>>, Option<NativeStatus>> {
    let of = ItemsOf::record(0, "record").expect("a record id").limits(of_lease(lease));
    let items = node.items(of).map(|item| item.map(|item| item.value.expect("a value")));
    items.collect::<Result<_, ClientError>>().map_err(|error| match error {
        ClientError::Refused { status, .. } => status,
        other => panic!("{other}"),
    })
}

fn fill(client: &mut NativeClient, fill: u8) {
    for item in 0..30 {
        let item = format!("item{item:02}");
        let answered =
            client.ask(&put(ItemKey { item: item.as_bytes(), ..key("record") }, SET, &[fill; 300]));
        assert_eq!(answered.status, NativeStatus::Ok);
    }
}

#[test]
fn pages_under_a_lease_show_its_moment_until_it_ends() {
    for cores in [1, 2] {
        let node = TestNode::start_with(cores, |config| config.shards = Some(3));
        let mut client = NativeClient::connect(node.node.addresses().native);
        let mut reader = connect(&node);
        fill(&mut client, 1);
        let lease = reader.lease("record", 0).expect("given");
        assert_eq!((lease.milliseconds, lease.lease & 0xFFFF), (60_000, u64::from(lease.shard)));
        fill(&mut client, 2);
        reader.delete_items(0, "record", ItemRange::Prefix(b"item1")).expect("deleted");
        assert_eq!(values(&mut reader, lease.lease), Ok(vec![vec![1; 300]; 30]));
        assert_eq!(values(&mut reader, 0), Ok(vec![vec![2; 300]; 20]));
        // Whoever knows it may use it, and end it.
        let mut other = connect(&node);
        assert_eq!(values(&mut other, lease.lease), Ok(vec![vec![1; 300]; 30]));
        assert!(other.end_lease(&lease).expect("ended"));
        assert!(!reader.end_lease(&lease).expect("it has ended before"));
        assert_eq!(values(&mut reader, lease.lease), Err(Some(NativeStatus::LeaseEnded)));
        let short = reader.lease("record", 50).expect("given");
        let until = Instant::now() + TIMEOUT;
        while values(&mut reader, short.lease).is_ok() {
            assert!(Instant::now() < until, "it does not end by itself");
            std::thread::sleep(Duration::from_millis(5));
        }
        node.stop();
    }
}

#[test]
fn a_scan_under_leases_shows_each_shard_as_it_was() {
    let node = TestNode::start_with(2, |config| config.shards = Some(3));
    let mut client = NativeClient::connect(node.node.addresses().native);
    for record in 0..60 {
        client.ask(&put(key(&format!("record{record}")), SET, b"old"));
    }
    let mut reader = connect(&node);
    let leases: Vec<_> = (0..3).map(|shard| reader.lease_shard(shard, 0).expect("given")).collect();
    for record in 0..120 {
        client.ask(&put(key(&format!("record{record}")), SET, b"new"));
    }
    let mut shown = 0;
    for (shard, lease) in leases.iter().enumerate() {
        assert_eq!(usize::from(lease.shard), shard);
        let items: Result<Vec<_>, _> = reader.scan(0, of_lease(lease.lease)).collect();
        let items = items.expect("readable");
        assert!(items.iter().all(|item| item.value.as_deref() == Some(b"old")));
        let reverse: Result<Vec<_>, _> = reader.scan_in_reverse(0, of_lease(lease.lease)).collect();
        assert_eq!(reverse.expect("readable").len(), items.len());
        shown += items.len();
    }
    assert_eq!(shown, 60);
    assert_eq!(reader.scan(0, of_lease(0)).count(), 120);
    node.stop();
}

#[test]
fn what_is_asked_of_leases_wrongly_is_refused_with_a_clear_status() {
    let node = TestNode::start_with(1, |config| config.shards = Some(2));
    let mut client = NativeClient::connect(node.node.addresses().native);
    let mut reader = connect(&node);
    let leases: Vec<_> = (0..2).map(|shard| reader.lease_shard(shard, 0).expect("given")).collect();
    let scan = |limits, token| {
        NativeRequest::Scan(ScanItems { namespace: 0, limits, token, is_descending: false })
    };
    let get = |lease| {
        NativeRequest::GetItems(GetItems { limits: of_lease(lease), ..of_record("record") })
    };
    let begin = |of| NativeRequest::BeginLease(BeginLease { milliseconds: 0, of });
    let mut status = |request: &NativeRequest<'_>| client.ask(request).status;
    let [first, second] = [leases[0].lease, leases[1].lease];
    let mut of_get = [status(&get(first)), status(&get(second))];
    of_get.sort_by_key(|status| *status as u8);
    assert_eq!(of_get, [NativeStatus::Ok, NativeStatus::LeaseEnded], "one is another shard's");
    assert_eq!(status(&get(u64::MAX)), NativeStatus::LeaseEnded, "there is no such shard");
    assert_eq!(status(&scan(of_lease(first ^ 1 << 40), b"")), NativeStatus::LeaseEnded);
    assert_eq!(status(&NativeRequest::EndLease(0)), NativeStatus::LeaseEnded);
    assert_eq!(status(&begin(LeaseOf::Shard(2))), NativeStatus::Malformed);
    let statuses: Vec<_> = (0..8).map(|_| status(&begin(LeaseOf::Shard(0)))).collect();
    assert_eq!(statuses[..7], [NativeStatus::Ok; 7]);
    assert_eq!(statuses[7], NativeStatus::Busy);
    assert!(reader.end_lease(&leases[0]).expect("ended"));
    assert_eq!(status(&begin(LeaseOf::Shard(0))), NativeStatus::Ok);
    node.stop();
}
