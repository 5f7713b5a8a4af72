//! The native port: requests to operations, answers to bytes. No I/O and no storage.

mod gathering;
mod large;
mod leases;
mod namespaces;
mod once;
mod pages;
mod records;
mod statistics;
mod statuses;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use larder_engine::key::{DEFAULT_NAMESPACE, Key, ROUTE_SEED};
use larder_engine::large::CHUNK_BYTES_MAX;
use larder_engine::operation::{
    Arithmetic, Delete, Exchange, Operation, Outcome, Read, Store, StoreMode,
};
use larder_engine::shard::{Acknowledgement, Answer, BatchAnswer, ItemBatch};
use larder_protocol::native::reply::{self, NativeItem, ReplyHead};
use larder_protocol::native::{
    ClientHello, Condition, DeleteItem, GetItem, HelloReply, ITEM_BYTES_MAX, IncrementItem,
    ItemKey, LargeItem, LargeWork, NativeLimits, NativeParsed, NativeParser, NativeRequest,
    NativeStatus, NativeStep, Opcode, PutItem, PutMode, RECORD_BYTES_MAX, Refusal,
    RequestDurability, RequestHead, StoreWhen, TouchItem, VERSION, capability,
};
use larder_protocol::sink::ReplySink;

use crate::canary::{self, NodeDefect};
use crate::codec::{Codec, Extent, Grouping, Meaning, Order};
use crate::counters::Kind;
use crate::facts::Facts;
use crate::limits::{CONNECTION_REQUESTS_MAX, PAGE_BYTES_MAX, PAGE_ITEMS_MAX, TOKEN_DRIFT_SECONDS};
use crate::namespaces::NamespaceView;
use crate::namespaces::rules::{ItemRules, acknowledgement, expiry_of};
use crate::request::{
    ItemRequest, Moment, NoAnswer, NodeAnswer, NodeRequest, ShardAnswer, ShardRequest, ShardWork,
};

use gathering::{Gathering, Held, Part};
use pages::Pages;
use records::{Fault, Mutation};
use statuses::{put_refused, refused, status_of};

/// The native protocol, as one connection has it.
#[derive(Clone, Debug)]
pub struct Native {
    parser: NativeParser,
    limits: NativeLimits,
    facts: Arc<Facts>,
    core: usize,
    /// No other connection has it.
    number: u64,
    namespaces: NamespaceView,
    /// Bytes of replies of which parts are missing.
    gathered: Held,
}

impl Native {
    /// For a connection to `core` that begins.
    pub fn new(facts: &Arc<Facts>, core: usize, namespaces: &NamespaceView) -> Self {
        let value_bytes_max = usize::try_from(facts.item_bytes_max).unwrap_or(usize::MAX);
        let limits = NativeLimits { value_bytes_max };
        Self {
            parser: NativeParser::default(),
            limits,
            facts: Arc::clone(facts),
            core,
            number: large::connection_number(),
            namespaces: namespaces.clone(),
            gathered: Held::default(),
        }
    }

    fn hello(&self) -> HelloReply {
        let facts = &self.facts;
        let short = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let long = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let port = |base: u16| (0..facts.cores).map(move |core| base.wrapping_add(short(core)));
        HelloReply {
            version: u16::from(VERSION),
            software: concat!("larder ", env!("CARGO_PKG_VERSION")).to_owned(),
            shards: facts.shards,
            hash_seed: ROUTE_SEED,
            cores: short(facts.cores),
            core: short(self.core),
            core_ports: facts.native_core_ports.into_iter().flat_map(port).collect(),
            record_bytes_max: long(RECORD_BYTES_MAX),
            item_bytes_max: long(ITEM_BYTES_MAX),
            value_bytes_max: long(self.limits.value_bytes_max),
            body_bytes_max: long(self.limits.body_bytes_max()),
            requests_max: long(CONNECTION_REQUESTS_MAX),
            opcodes: Opcode::ALL.map(|opcode| opcode as u8).to_vec(),
            page_items_max: long(PAGE_ITEMS_MAX),
            page_bytes_max: long(PAGE_BYTES_MAX),
            large_bytes_max: facts.large_bytes_max,
            chunk_bytes_max: long(CHUNK_BYTES_MAX.min(self.limits.value_bytes_max)),
            read_target_microseconds: facts.targets.0,
            write_target_microseconds: facts.targets.1,
            shard_loads: facts.loads.all(),
            read_p99_microseconds: facts.latencies.reads(),
            write_p99_microseconds: facts.latencies.writes(),
            capabilities: capability::ALL,
            token_window_seconds: facts.idempotency_window,
            token_drift_seconds: TOKEN_DRIFT_SECONDS,
        }
    }

    /// What `request` asks of a whole shard, at Unix second `now`; `None` if it asks for something
    /// else.
    fn shard_request(
        &self,
        (head, request): (&RequestHead, &NativeRequest<'_>),
        now: u32,
        deadline: Option<u64>,
    ) -> Option<Result<ShardRequest, Fault>> {
        let shards = self.facts.shards;
        Some(match request {
            NativeRequest::Mutate(mutate) => {
                let value_bytes_max = self.limits.value_bytes_max;
                let told = (&self.namespaces, deadline);
                let asked = Mutation::asked(mutate, (shards, now), value_bytes_max, told);
                let of = (mutate.namespace, mutate.record);
                asked.and_then(|asked| self.with_token(head, of, asked, now))
            }
            NativeRequest::DeleteItems(delete) => {
                let asked = records::deletion(delete, (&self.namespaces, shards), deadline);
                let of = (delete.namespace, delete.record);
                asked.and_then(|asked| self.with_token(head, of, asked, now))
            }
            NativeRequest::BeginLease(begin) => leases::begun(begin, shards, deadline),
            NativeRequest::EndLease(lease) => leases::ended(*lease, shards, deadline),
            NativeRequest::Large(large) => {
                let known = (&self.namespaces, shards);
                large::asked(large, known, (now, deadline), self.number)
            }
            NativeRequest::MultiGet(multi) => {
                Err(records::settings_of(&self.namespaces, multi.namespace).err()?)
            }
            _ => {
                let asked = Pages::asked(request, (&self.namespaces, shards), deadline)?;
                asked.map(|(_, request)| request)
            }
        })
    }
}

impl Native {
    /// The changes of a record of a namespace as they are done once, if their request has a token.
    fn with_token(
        &self,
        head: &RequestHead,
        (namespace, record): (u32, &[u8]),
        mut asked: ShardRequest,
        now: u32,
    ) -> Result<ShardRequest, Fault> {
        if let (
            Some(token),
            ShardWork::Batch(ItemBatch { once, .. }) | ShardWork::DeleteRange(_, once),
        ) = (&head.token, &mut asked.work)
        {
            let key = ItemKey { namespace, record, item: b"" };
            let window = self.facts.idempotency_window;
            *once = Some(once::once(token, &key, now, window).ok_or(once::REFUSED)?);
        }
        Ok(asked)
    }

    /// What rules the items that such work is about.
    fn rules_of_work(&self, request: &ShardRequest) -> ItemRules {
        let namespace = match &request.work {
            ShardWork::Batch(batch) => {
                batch.steps.first().map_or(DEFAULT_NAMESPACE, |step| step.namespace)
            }
            ShardWork::DeleteRange(range, _) => range.namespace(),
            ShardWork::Large(large) => large.namespace,
            ShardWork::Page(scan) => scan.namespace(),
            ShardWork::Keyed(keyed) => keyed.limits.namespace(),
            // They are about no namespace.
            ShardWork::BeginLease(_) | ShardWork::EndLease(_) => {
                return ItemRules::default();
            }
        };
        self.namespaces.rules(namespace).unwrap_or_default()
    }
}

/// The head of a reply that answers no request: the connection closes behind it.
const NOBODY: ReplyHead = ReplyHead { id: 0, opcode: 0, has_checksum: false, hops: 0 };

/// What is kept of a request whose answer is encoded later.
#[derive(Clone, Debug)]
pub struct NativeToken {
    head: ReplyHead,
    /// Whether a put demanded that there is an item.
    wants_item: bool,
    /// What a whole shard was asked for.
    asked: Option<Box<ShardAsked>>,
    /// Which part of an answer it is that is gathered from several.
    part: Option<Part>,
}

/// What of a request to a shard its reply needs.
#[derive(Clone, Debug)]
enum ShardAsked {
    /// A page.
    Pages(Pages),
    /// Changes of a record.
    Mutation(Mutation),
    /// The end of a range.
    Deletion,
    /// A lease, or its end.
    Lease,
    /// A change of one item that is made once.
    Once,
    /// A step on the way of a large value.
    Large,
}

impl NativeToken {
    #[inline]
    fn of(head: &RequestHead, request: &NativeRequest<'_>) -> Self {
        let RequestHead { id, opcode, has_checksum, .. } = *head;
        let wants_item = match request {
            NativeRequest::Put(put) => !matches!(put.mode, PutMode::IfAbsent),
            NativeRequest::Large(LargeItem { work: LargeWork::Commit { when, .. }, .. }) => {
                *when != StoreWhen::IfAbsent
            }
            _ => true,
        };
        let head = ReplyHead { id, opcode: opcode as u8, has_checksum, hops: 0 };
        Self { head, wants_item, asked: None, part: None }
    }

    /// The part of an answer that it is.
    fn part(&self) -> &Part {
        self.part.as_ref().expect("it is the token of a part")
    }

    /// Appends the reply to a request that has gone from one core to another so many times.
    fn put<S: ReplySink>(&self, answer: Result<&Answer<'_>, NoAnswer>, hops: u8, sink: &mut S) {
        let head = ReplyHead { hops, ..self.head };
        let answer = match answer {
            Ok(answer) if answer.outcome == Outcome::Hit => {
                return reply::put_item(sink, head, &item_of(answer));
            }
            Ok(answer) => answer,
            Err(no_answer) => {
                let status = status_of(no_answer);
                return reply::put_error(sink.bytes(), head, status, status.text());
            }
        };
        let (metadata, out) = (&answer.metadata, sink.bytes());
        match answer.outcome {
            Outcome::Stored => reply::put_version(out, head, metadata.version),
            Outcome::Deleted => reply::put(out, head, NativeStatus::Ok, |_| ()),
            Outcome::Number(number) => reply::put_number(out, head, number, metadata.version),
            Outcome::Large if !answer.value.is_empty() => {
                reply::put_large(out, head, &item_of(&answer.without_value()), answer.value);
            }
            outcome => match refused(outcome, self.wants_item) {
                Some(status) => put_refused(out, head, status),
                None => panic!("{outcome:?} is no refusal"),
            },
        }
    }
}

/// An item that was found, as replies show it.
#[inline]
fn item_of<'a>(answer: &Answer<'a>) -> NativeItem<'a> {
    let metadata = &answer.metadata;
    NativeItem {
        version: metadata.version,
        client_flags: metadata.client_flags,
        expiry: metadata.expiry,
        value_len: u32::try_from(answer.value_len).unwrap_or(u32::MAX),
        value: answer.value,
    }
}

/// When the answer may be given. Who only reads is told no earlier than others what a crash may
/// take back.
fn acknowledgement_of(head: &RequestHead, rules: ItemRules) -> Acknowledgement {
    let only_reads = matches!(
        head.opcode,
        Opcode::Get
            | Opcode::MultiGet
            | Opcode::GetAndTouch
            | Opcode::GetItems
            | Opcode::Scan
            | Opcode::GetChunk
    );
    match head.durability {
        RequestDurability::Sync => Acknowledgement::Durable,
        RequestDurability::None if !only_reads => Acknowledgement::Made,
        RequestDurability::None | RequestDurability::AsNode => acknowledgement(rules, only_reads),
    }
}

/// When nobody waits any more for the answer to a request that was received at this nanosecond.
fn deadline_of(head: &RequestHead, asked: u64) -> Option<u64> {
    match u64::from(head.deadline_microseconds) {
        0 => None,
        microseconds => Some(asked + microseconds * 1000),
    }
}

/// Appends a reply that is nobody's mistake, and says all by its status.
fn put_status(out: &mut Vec<u8>, head: ReplyHead, status: NativeStatus) {
    reply::put(out, head, status, |_| ());
}

/// What one shard is to do for `request`.
fn item_request<'a>(
    request: &NativeRequest<'a>,
    now: u32,
    rules: ItemRules,
) -> Option<(Operation<'a>, Kind)> {
    let key = request.key()?;
    let expiry = |ttl: u32| expiry_of(rules, &key_of(key), ttl, now);
    Some(match *request {
        NativeRequest::Get(get) => read_of(&get),
        NativeRequest::Touch(TouchItem { ttl, with_value, .. }) => {
            let read = Read { value: with_value, expiry: Some(expiry(ttl)), ..Read::default() };
            let kind = if with_value { Kind::Get { touches: true } } else { Kind::Touch };
            (Operation::Read(read), kind)
        }
        NativeRequest::Put(put) => store_of(&put, expiry(put.ttl)),
        NativeRequest::Delete(DeleteItem { condition: Condition::Value(demanded), .. }) => {
            (Operation::Exchange(Exchange::delete(demanded)), Kind::Delete)
        }
        NativeRequest::Delete(DeleteItem { condition, .. }) => {
            let delete = Delete { compare: version_of(condition), ..Delete::default() };
            (Operation::Delete(delete), Kind::Delete)
        }
        NativeRequest::Increment(IncrementItem { is_decrement, delta, initial, .. }) => {
            let vivify = initial.map(|(initial, ttl)| (initial, expiry(ttl)));
            let (compare, expiry, version) = (None, None, None);
            let decrement = is_decrement;
            let arithmetic = Arithmetic { delta, decrement, compare, vivify, expiry, version };
            let kind = if is_decrement { Kind::Decrement } else { Kind::Increment };
            (Operation::Arithmetic(arithmetic), kind)
        }
        _ => return None,
    })
}

/// What one shard is to do to read an item.
#[inline]
fn read_of(get: &GetItem<'_>) -> (Operation<'static>, Kind) {
    let read = Read { value: !get.metadata_only, quiet: get.is_quiet, ..Read::default() };
    (Operation::Read(read), Kind::Get { touches: false })
}

/// What one shard is to do to store a value with this expiry.
fn store_of<'a>(put: &PutItem<'a>, expiry: u32) -> (Operation<'a>, Kind) {
    let PutItem { mode, client_flags, value, .. } = *put;
    let (mode, compare) = match mode {
        PutMode::Set(Condition::Value(demanded)) => {
            let exchange = Exchange::store(demanded, value, client_flags, expiry);
            return (Operation::Exchange(exchange), Kind::CompareAndStore);
        }
        PutMode::Set(condition) => (StoreMode::Set, version_of(condition)),
        PutMode::IfAbsent => (StoreMode::Add, None),
        PutMode::IfPresent => (StoreMode::Replace, None),
        PutMode::Append => (StoreMode::Append, None),
        PutMode::Prepend => (StoreMode::Prepend, None),
    };
    let kind = if compare.is_some() { Kind::CompareAndStore } else { Kind::Store };
    let store = Store {
        mode,
        value,
        client_flags,
        expiry,
        compare,
        invalidate: false,
        is_large: false,
        vivify: None,
        version: None,
    };
    (Operation::Store(store), kind)
}

/// The version that a condition demands.
fn version_of(condition: Condition<'_>) -> Option<u64> {
    match condition {
        Condition::Version(version) => Some(version),
        Condition::Any | Condition::Value(_) => None,
    }
}

/// The operation on this key as a request, which was received at this nanosecond.
#[inline]
fn request_of<'a>(
    (head, asked): (&RequestHead, u64),
    rules: ItemRules,
    key: ItemKey<'a>,
    (operation, kind): (Operation<'a>, Kind),
) -> ItemRequest<'a> {
    ItemRequest {
        key: key_of(key),
        operation,
        kind,
        deadline: deadline_of(head, asked),
        acknowledgement: acknowledgement_of(head, rules),
        replaces: false,
    }
}

fn key_of(key: ItemKey<'_>) -> Key<'_> {
    Key { namespace: key.namespace, record: key.record, item: key.item }
}

impl Codec for Native {
    const ORDER: Order = Order::AsDone;

    type Message<'a> = NativeStep<'a>;
    type Mark = NativeParser;
    type Room = ();
    type Token = NativeToken;

    #[inline]
    fn mark(&self) -> NativeParser {
        self.parser.clone()
    }

    fn rewind(&mut self, mark: &NativeParser) {
        self.parser = mark.clone();
    }

    #[inline]
    fn cut<'a>(&mut self, input: &'a [u8]) -> NativeStep<'a> {
        self.parser.next(&self.limits, input)
    }

    #[inline]
    fn extent(step: &NativeStep<'_>) -> Extent {
        let consumed = step.consumed;
        match step.parsed {
            NativeParsed::NeedMore { bytes } => Extent::Part { consumed, needed: bytes },
            NativeParsed::Close => Extent::Close,
            NativeParsed::Request(..) | NativeParsed::Refused(_) => Extent::Whole { consumed },
        }
    }

    #[inline]
    fn is_last(step: &NativeStep<'_>) -> bool {
        matches!(step.parsed, NativeParsed::Refused(Refusal { is_last: true, .. }))
    }

    #[inline]
    fn key<'s>(step: &'s NativeStep<'_>, _: &'s mut ()) -> Option<Key<'s>> {
        match &step.parsed {
            NativeParsed::Request(_, request) => request.key().map(key_of),
            _ => None,
        }
    }

    #[inline]
    fn meaning<'s>(
        &self,
        step: &'s NativeStep<'_>,
        _: &'s mut (),
        (asked, now): (u64, Moment),
    ) -> Meaning<'s> {
        let (head, request) = match &step.parsed {
            NativeParsed::Request(head, request) => (head, request),
            NativeParsed::Refused(Refusal { is_last: true, .. }) => return Meaning::Close,
            _ => return Meaning::Constant,
        };
        let deadline = deadline_of(head, asked);
        let Some(key) = request.key() else {
            if let Some(request) = namespaces::change(request) {
                return Meaning::Node(NodeRequest::Namespace(request));
            }
            return match self.shard_request((head, request), now.second, deadline) {
                Some(Ok(request)) => {
                    let rules = self.rules_of_work(&request);
                    let acknowledgement = acknowledgement_of(head, rules);
                    Meaning::Shard(Arc::new(ShardRequest { acknowledgement, ..request }))
                }
                None if matches!(request, NativeRequest::MultiGet(_)) => Meaning::Parts,
                None if matches!(request, NativeRequest::Statistics) => {
                    Meaning::Node(NodeRequest::Reports { reset: false })
                }
                Some(Err(_)) | None => Meaning::Constant,
            };
        };
        let Some(rules) = self.namespaces.rules(key.namespace) else {
            return Meaning::Constant;
        };
        // By far the most. Through the match of all operations it would be stored and read back.
        if let (NativeRequest::Get(get), None) = (request, &head.token) {
            return Meaning::Keyed(request_of((head, asked), rules, key, read_of(get)));
        }
        let Some(asks) = item_request(request, now.second, rules) else {
            panic!("what has a key is about an item: {request:?}");
        };
        if let Some(token) = &head.token {
            let window = self.facts.idempotency_window;
            let Some(once) = once::once(token, &key, now.second, window) else {
                return Meaning::Constant;
            };
            let limits = (self.facts.shards, self.limits.value_bytes_max);
            let (shard, batch) = once::batch_of(&key, &asks.0, once, limits);
            let acknowledgement = acknowledgement_of(head, rules);
            let request = ShardRequest::new(shard, deadline, ShardWork::Batch(batch));
            return Meaning::Shard(Arc::new(ShardRequest { acknowledgement, ..request }));
        }
        Meaning::Keyed(request_of((head, asked), rules, key, asks))
    }

    #[inline]
    fn next_part<'s>(
        &self,
        step: &'s NativeStep<'_>,
        cursor: &mut usize,
        asked: u64,
    ) -> Option<ItemRequest<'s>> {
        let NativeParsed::Request(head, NativeRequest::MultiGet(multi)) = &step.parsed else {
            panic!("{step:?} has no parts");
        };
        let get = multi.get_at(cursor)?;
        let rules = self.namespaces.rules(get.key.namespace).unwrap_or_default();
        Some(request_of((head, asked), rules, get.key, read_of(&get)))
    }

    fn first_part(&self, step: &NativeStep<'_>) -> NativeToken {
        let NativeParsed::Request(head, request @ NativeRequest::MultiGet(multi)) = &step.parsed
        else {
            panic!("{step:?} has no parts");
        };
        let token = NativeToken::of(head, request);
        let gathering = Gathering::new(token.head, multi.len(), &self.gathered);
        NativeToken { part: Some(Part { of: Rc::new(RefCell::new(gathering)), at: 0 }), ..token }
    }

    #[inline]
    fn other_part(part: &NativeToken, at: usize) -> NativeToken {
        let Part { of, .. } = part.part();
        NativeToken { part: Some(Part { of: Rc::clone(of), at }), asked: None, ..*part }
    }

    #[inline]
    fn part_has_room(part: &NativeToken) -> bool {
        !part.part().of.borrow().is_full()
    }

    fn part_holds_values(part: &NativeToken) -> bool {
        part.part().of.borrow().holds_values()
    }

    #[inline]
    fn put_part(&self, part: &NativeToken, answer: Option<Result<&Answer<'_>, NoAnswer>>) {
        let Part { of, at } = part.part();
        let found = match answer {
            None => Err(NativeStatus::Busy),
            Some(Err(no_answer)) => Err(status_of(no_answer)),
            Some(Ok(answer)) => match (answer.outcome, refused(answer.outcome, true)) {
                // Its length tells that the value is left out.
                (Outcome::Large, _) => Ok(item_of(&answer.without_value())),
                (_, None) => Ok(item_of(answer)),
                (_, Some(status)) => Err(status),
            },
        };
        of.borrow_mut().put(*at, found.as_ref().map_err(|status| *status));
    }

    #[inline]
    fn pass_part(&self, part: &NativeToken, is_lost: bool, out: &mut Vec<u8>) {
        let Part { of, at } = part.part();
        of.borrow_mut().pass(*at, is_lost, out);
    }

    fn gathered_bytes(&self) -> usize {
        self.gathered.get()
    }

    #[inline]
    fn grouping(_: &NativeStep<'_>) -> Grouping {
        Grouping::Alone
    }

    fn put_constant(&self, step: &NativeStep<'_>, out: &mut Vec<u8>) {
        match &step.parsed {
            NativeParsed::Refused(refusal) => {
                let Refusal { id, opcode, has_checksum, status, reason, .. } = *refusal;
                let head = ReplyHead { id, opcode, has_checksum, hops: 0 };
                reply::put_error(out, head, status, reason);
            }
            NativeParsed::Request(head, request) => {
                let (asked, head) = (head, NativeToken::of(head, request).head);
                match request {
                    NativeRequest::Ping(bytes) => {
                        reply::put(out, head, NativeStatus::Ok, |out| out.extend_from_slice(bytes));
                    }
                    NativeRequest::Hello(ClientHello { version_min, version_max, .. }) => {
                        if (*version_min..=*version_max).contains(&u16::from(VERSION)) {
                            let body = self.hello().encode();
                            reply::put(out, head, NativeStatus::Ok, |out| {
                                out.extend_from_slice(&body);
                            });
                        } else {
                            let status = NativeStatus::UnsupportedVersion;
                            reply::put_error(out, head, status, "this node speaks version 1");
                        }
                    }
                    NativeRequest::ListNamespaces(name) => {
                        namespaces::put_list(head, &self.namespaces.table(), *name, out);
                    }
                    _ => {
                        let fault =
                            self.shard_request((asked, request), 0, None).and_then(Result::err);
                        let fault = fault.or_else(|| {
                            let key = request.key()?;
                            records::settings_of(&self.namespaces, key.namespace).err()
                        });
                        let fault = fault.or(asked.token.map(|_| once::REFUSED));
                        let (status, reason) = fault.expect("what is sound is asked of a shard");
                        reply::put_error(out, head, status, reason);
                    }
                }
            }
            NativeParsed::NeedMore { .. } | NativeParsed::Close => {}
        }
    }

    #[inline]
    fn put(
        &self,
        step: &NativeStep<'_>,
        answer: Result<&Answer<'_>, NoAnswer>,
        _: u32,
        out: &mut Vec<u8>,
    ) {
        let NativeParsed::Request(head, request) = &step.parsed else {
            panic!("{step:?} is not asked of a shard");
        };
        NativeToken::of(head, request).put(answer, 0, out);
    }

    #[inline]
    fn token(&self, step: &NativeStep<'_>) -> NativeToken {
        match &step.parsed {
            NativeParsed::Request(head, request) => {
                let asked = match request {
                    NativeRequest::Mutate(mutate) => {
                        Some(ShardAsked::Mutation(Mutation::of(mutate)))
                    }
                    NativeRequest::DeleteItems(_) => Some(ShardAsked::Deletion),
                    NativeRequest::BeginLease(_) | NativeRequest::EndLease(_) => {
                        Some(ShardAsked::Lease)
                    }
                    NativeRequest::Large(_) => Some(ShardAsked::Large),
                    _ if head.token.is_some() => Some(ShardAsked::Once),
                    _ if request.key().is_some() => None,
                    _ => Pages::asked(request, (&self.namespaces, self.facts.shards), None)
                        .and_then(Result::ok)
                        .map(|(pages, _)| ShardAsked::Pages(pages)),
                };
                NativeToken { asked: asked.map(Box::new), ..NativeToken::of(head, request) }
            }
            other => panic!("{other:?} does not wait"),
        }
    }

    fn token_bytes(token: &NativeToken) -> usize {
        token.asked.as_ref().map_or(0, |asked| match &**asked {
            ShardAsked::Mutation(mutation) => size_of::<ShardAsked>() + mutation.memory(),
            ShardAsked::Pages(_)
            | ShardAsked::Deletion
            | ShardAsked::Lease
            | ShardAsked::Once
            | ShardAsked::Large => size_of::<ShardAsked>(),
        })
    }

    fn put_waited<S: ReplySink>(
        &self,
        token: &NativeToken,
        answer: Result<&Answer<'_>, NoAnswer>,
        (_, hops): (u32, u8),
        out: &mut S,
    ) {
        if let Some(Part { of, .. }) = &token.part {
            of.borrow_mut().note_hops(hops);
            self.put_part(token, Some(answer));
            return self.pass_part(token, false, out.bytes());
        }
        if canary::has(NodeDefect::OtherRequestId) {
            let head = ReplyHead { id: token.head.id ^ 1, ..token.head };
            return NativeToken { head, ..token.clone() }.put(answer, hops, out);
        }
        token.put(answer, hops, out);
    }

    fn put_shard(
        &self,
        token: &mut NativeToken,
        answer: &ShardAnswer,
        (_, hops): (u32, u8),
        out: &mut Vec<u8>,
    ) -> Option<Arc<ShardRequest>> {
        let head = ReplyHead { hops, ..token.head };
        let asked = token.asked.as_deref();
        match (asked.expect("a whole shard was asked"), answer) {
            (ShardAsked::Pages(pages), ShardAnswer::Page(page, bytes)) => {
                pages.put(head, (page, *bytes), self.facts.shards, out);
            }
            (ShardAsked::Pages(pages), ShardAnswer::Keyed(page, bytes)) => {
                pages.put_keyed(head, (page, *bytes), out);
            }
            (ShardAsked::Mutation(mutation), ShardAnswer::Batch(answer)) => {
                mutation.put(head, answer, out);
            }
            (ShardAsked::Deletion, ShardAnswer::Batch(BatchAnswer::OtherRequest)) => {
                once::put_other(head, out);
            }
            (ShardAsked::Deletion, ShardAnswer::Deleted | ShardAnswer::Batch(_))
            | (ShardAsked::Lease, ShardAnswer::LeaseEnded) => {
                put_status(out, head, NativeStatus::Ok);
            }
            (ShardAsked::Lease, ShardAnswer::Leased(given)) => {
                reply::put_lease(out, head, &leases::shown(given));
            }
            (ShardAsked::Large, ShardAnswer::Large(answer)) => {
                large::put(head, token.wants_item, answer, out);
            }
            (ShardAsked::Once, ShardAnswer::Batch(answer)) => once::put(token, answer, hops, out),
            (asked, answer) => panic!("{answer:?} is no answer to {asked:?}"),
        }
        None
    }

    fn put_node(&self, token: &NativeToken, answer: &NodeAnswer, out: &mut Vec<u8>) {
        match answer {
            NodeAnswer::Namespace(changed) => namespaces::put_changed(token.head, changed, out),
            NodeAnswer::Reports(reports, now) => {
                let body = statistics::reply(&self.facts, reports, *now).encode();
                reply::put(out, token.head, NativeStatus::Ok, |out| out.extend_from_slice(&body));
            }
            _ => panic!("nothing of this protocol asks for {answer:?}: {token:?}"),
        }
    }

    fn put_stopped(&self, reply: &[u8], out: &mut Vec<u8>) {
        let head = reply::head_of(reply);
        reply::put_error(out, head, NativeStatus::Stopped, NativeStatus::Stopped.text());
    }

    fn put_turned_away(&self, out: &mut Vec<u8>) {
        reply::put_error(
            out,
            NOBODY,
            NativeStatus::Busy,
            "too many connections; raise --max-connections",
        );
    }

    fn put_shed(&self, out: &mut Vec<u8>) {
        let reason = "the connections hold too much memory; send less at a time, or raise --memory";
        reply::put_error(out, NOBODY, NativeStatus::Busy, reason);
    }
}
