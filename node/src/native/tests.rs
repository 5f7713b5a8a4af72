use larder_engine::entry::Metadata;
use larder_engine::scan::Page;
use larder_protocol::native::reply::NativeReply;
use larder_protocol::native::{
    GetItems, ItemRange, NativePage, PageLimits, RequestOptions, put_request, put_request_as,
};

use super::*;

const KEY: ItemKey<'static> = ItemKey { namespace: 0, record: b"r", item: b"i" };
const NOW: Moment = Moment { second: 1_000_000, nanoseconds: 5000 };

fn native() -> Native {
    Native::new(&Arc::new(Facts::example()), 1, &NamespaceView::default())
}

fn put(mode: PutMode<'static>) -> NativeRequest<'static> {
    NativeRequest::Put(PutItem { key: KEY, mode, client_flags: 3, ttl: 60, value: b"v" })
}

fn get() -> NativeRequest<'static> {
    NativeRequest::Get(GetItem { key: KEY, metadata_only: false, is_quiet: false })
}

fn bytes_of(request: &NativeRequest<'_>, deadline: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_request(&mut bytes, 77, deadline, false, request);
    bytes
}

/// What `request` means to a shard.
fn meaning(request: &NativeRequest<'_>, deadline: u32) -> String {
    let bytes = bytes_of(request, deadline);
    let mut native = native();
    let step = native.cut(&bytes);
    format!("{:?}", native.meaning(&step, &mut (), (2000, NOW)))
}

/// The status of the reply to `request` where the shard answers with `outcome`, at once and later.
fn status(request: &NativeRequest<'_>, outcome: Result<Outcome, NoAnswer>) -> NativeStatus {
    let bytes = bytes_of(request, 0);
    let mut native = native();
    let step = native.cut(&bytes);
    let answer = outcome.map(|outcome| Answer {
        metadata: Metadata { version: 9, client_flags: 8, expiry: 7, state: 0 },
        ..Answer::nothing(outcome, 0)
    });
    let answer = answer.as_ref().map_err(|no_answer| *no_answer);
    let (mut now, mut later) = (Vec::new(), Vec::new());
    native.put(&step, answer, 0, &mut now);
    native.put_waited(&native.token(&step), answer, (0, 1), &mut later);
    let (reply, _) = NativeReply::read(&now, 1 << 20).expect("a reply");
    let (waited, _) = NativeReply::read(&later, 1 << 20).expect("a reply");
    assert_eq!((reply.head.id, reply.head.hops, waited.head.hops), (77, 0, 1));
    assert_eq!((reply.status, reply.body), (waited.status, waited.body));
    reply.status.expect("a status")
}

#[test]
fn every_outcome_has_its_status() {
    let set = put(PutMode::Set(Condition::Any));
    let (absent, present) = (put(PutMode::IfAbsent), put(PutMode::IfPresent));
    let exchange = put(PutMode::Set(Condition::Value(b"old")));
    for (request, outcome, expected) in [
        (get(), Ok(Outcome::Hit), NativeStatus::Ok),
        (get(), Ok(Outcome::Miss), NativeStatus::Absent),
        (set, Ok(Outcome::Stored), NativeStatus::Ok),
        (set, Ok(Outcome::TooLarge), NativeStatus::TooLarge),
        (absent, Ok(Outcome::NotStored), NativeStatus::Exists),
        (present, Ok(Outcome::NotStored), NativeStatus::Absent),
        (put(PutMode::Append), Ok(Outcome::NotStored), NativeStatus::Absent),
        (put(PutMode::Prepend), Ok(Outcome::NotStored), NativeStatus::Absent),
        (set, Ok(Outcome::Exists), NativeStatus::VersionDiffers),
        (set, Ok(Outcome::NotFound), NativeStatus::Absent),
        (exchange, Ok(Outcome::ValueDiffers), NativeStatus::ValueDiffers),
        (exchange, Ok(Outcome::NotFound), NativeStatus::Absent),
        (get(), Ok(Outcome::Deleted), NativeStatus::Ok),
        (get(), Ok(Outcome::Number(4)), NativeStatus::Ok),
        (get(), Ok(Outcome::NotNumeric), NativeStatus::NotANumber),
        (get(), Err(NoAnswer::Damaged), NativeStatus::Damaged),
        (get(), Err(NoAnswer::Full), NativeStatus::Full),
        (get(), Err(NoAnswer::Stopped), NativeStatus::Stopped),
        (get(), Err(NoAnswer::ReadFailed), NativeStatus::ReadFailed),
        (get(), Err(NoAnswer::TooLate), NativeStatus::DeadlinePassed),
    ] {
        assert_eq!(status(&request, outcome), expected, "{request:?} {outcome:?}");
    }
}

#[test]
fn requests_mean_what_the_document_says() {
    let stored = meaning(&put(PutMode::Set(Condition::Version(4))), 0);
    for part in ["mode: Set", "expiry: 1000060", "compare: Some(4)", "client_flags: 3"] {
        assert!(stored.contains(part), "{part} in {stored}");
    }
    assert!(meaning(&put(PutMode::IfAbsent), 0).contains("mode: Add"));
    let exchanged = Exchange::store(b"old", b"v", 3, 1_000_060);
    let put_if_value = meaning(&put(PutMode::Set(Condition::Value(b"old"))), 0);
    assert!(put_if_value.contains(&format!("{exchanged:?}")), "{put_if_value}");
    let condition = Condition::Value(b"old");
    let delete_if_value = meaning(&NativeRequest::Delete(DeleteItem { key: KEY, condition }), 0);
    assert!(delete_if_value.contains(&format!("{:?}", Exchange::delete(b"old"))));
    for (durability, put_waits, get_waits) in [
        (RequestDurability::AsNode, "Configured", "Configured"),
        (RequestDurability::Sync, "Durable", "Durable"),
        (RequestDurability::None, "Made", "Configured"),
    ] {
        for (request, expected) in [(put(PutMode::IfAbsent), put_waits), (get(), get_waits)] {
            let mut bytes = Vec::new();
            let options = RequestOptions { durability, ..RequestOptions::default() };
            put_request_as(&mut bytes, 1, &options, &request);
            let mut native = native();
            let step = native.cut(&bytes);
            let meaning = format!("{:?}", native.meaning(&step, &mut (), (2000, NOW)));
            let expected = format!("acknowledgement: {expected}");
            assert!(meaning.contains(&expected), "{expected} in {meaning}");
        }
    }
    assert!(meaning(&get(), 0).contains("deadline: None"));
    assert!(meaning(&get(), 3).contains("deadline: Some(5000)"), "from when it was received");
    let forever = NativeRequest::Touch(TouchItem { key: KEY, ttl: 0, with_value: false });
    assert!(meaning(&forever, 0).contains("expiry: Some(0)"));
    let long = NativeRequest::Touch(TouchItem { key: KEY, ttl: u32::MAX, with_value: false });
    assert!(meaning(&long, 0).contains(&format!("expiry: Some({})", u32::MAX)));
    let other = ItemKey { namespace: 1, ..KEY };
    let elsewhere =
        NativeRequest::Get(GetItem { key: other, metadata_only: false, is_quiet: false });
    assert_eq!(meaning(&elsewhere, 0), "Constant");
    assert_eq!(meaning(&NativeRequest::Ping(b""), 0), "Constant");
}

#[test]
fn pages_are_asked_of_a_shard_and_shown_with_what_they_are_of() {
    let range = ItemRange::Prefix(b"");
    let limits = PageLimits::default();
    let (namespace, record, is_descending) = (0, &b"r"[..], false);
    let keys = None;
    let asked = |token| GetItems { namespace, record, range, keys, is_descending, limits, token };
    let first = NativeRequest::GetItems(asked(b""));
    for part in ["Shard(", "deadline: Some(5000)", "Page("] {
        assert!(meaning(&first, 3).contains(part), "{part} in {}", meaning(&first, 3));
    }
    assert_eq!(status(&first, Err(NoAnswer::TooLate)), NativeStatus::DeadlinePassed);
    assert_eq!(status(&first, Err(NoAnswer::Damaged)), NativeStatus::Damaged);
    let bytes = bytes_of(&first, 0);
    let mut native = native();
    let step = native.cut(&bytes);
    let (mut token, mut out) = (native.token(&step), Vec::new());
    assert_eq!(Native::token_bytes(&token), size_of::<Pages>());
    let page = ShardAnswer::page(Page::default());
    assert_eq!(native.put_shard(&mut token, &page, (0, 1), &mut out), None);
    let (reply, _) = NativeReply::read(&out, 1 << 20).expect("a reply");
    assert_eq!((reply.head.id, reply.head.hops), (77, 1));
    assert_eq!(NativePage::decode(reply.body), Ok(NativePage::default()));
    let other = NativeRequest::GetItems(asked(b"no token"));
    assert_eq!(meaning(&other, 0), "Constant");
    let bytes = bytes_of(&other, 0);
    out.clear();
    native.put_constant(&native.clone().cut(&bytes), &mut out);
    let (reply, _) = NativeReply::read(&out, 1 << 20).expect("a reply");
    assert_eq!(reply.status, Some(NativeStatus::BadToken));
}

#[test]
fn a_reply_that_must_not_leave_is_replaced_under_its_id() {
    let native = native();
    let head = ReplyHead { id: 5, opcode: 0x11, has_checksum: true, hops: 0 };
    let (mut reply, mut out) = (Vec::new(), Vec::new());
    reply::put_version(&mut reply, head, 1);
    native.put_stopped(&reply, &mut out);
    let (read, _) = NativeReply::read(&out, 1 << 20).expect("a reply");
    assert_eq!((read.head, read.status), (head, Some(NativeStatus::Stopped)));
    out.clear();
    native.put_turned_away(&mut out);
    let (read, _) = NativeReply::read(&out, 1 << 20).expect("a reply");
    assert!(read.status == Some(NativeStatus::Busy) && read.reason().contains("--max-connections"));
}
