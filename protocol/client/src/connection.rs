//! One connection of one thread.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use larder_protocol::native::reply::{NativeItem, NativeReply, ReplyError, ReplyHead};
use larder_protocol::native::{
    ClientHello, Condition, DeleteItem, GetItem, HelloReply, IdempotencyToken, IncrementItem,
    NativeRequest, NativeStatus, PutItem, PutMode, RequestDurability, RequestOptions, TouchItem,
    VERSION, put_request_as,
};

use crate::clock::now;
use crate::error::ClientError;
use crate::key::ItemRef;

/// The longest value that any node takes, in bytes.
pub(crate) const VALUE_BYTES_MAX: usize = 128 << 20;

/// The longest reply that is taken, in bytes: the longest value, and its head.
pub(crate) const REPLY_BYTES_MAX: u32 = VALUE_BYTES_MAX as u32 + 4096;

/// Bytes that one read may bring.
const READ_BYTES: usize = 64 << 10;

/// An item that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Changes whenever the value does.
    pub version: u64,
    /// The 32 bits that were stored with the value.
    pub client_flags: u32,
    /// Unix second at which the item is gone; 0 for never.
    pub expiry: u32,
    /// How long the value is, in bytes, also where it was not asked for.
    pub value_len: u32,
    /// The value; empty if it was not asked for.
    pub value: Vec<u8>,
}

impl Item {
    pub(crate) fn of(item: &NativeItem<'_>) -> Self {
        Self {
            version: item.version,
            client_flags: item.client_flags,
            expiry: item.expiry,
            value_len: item.value_len,
            value: item.value.to_vec(),
        }
    }
}

/// When a value is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When<'a> {
    /// In any case.
    #[default]
    Always,
    /// Only if there is no item.
    Absent,
    /// Only if there is one.
    Present,
    /// Only if the item has this version.
    Version(u64),
    /// Only if the item has this value. Both together are no longer than one may be.
    Value(&'a [u8]),
    /// Behind the item's value, whose client flags and expiry stay.
    Append,
    /// Before the item's value, whose client flags and expiry stay.
    Prepend,
}

/// A value to store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Put<'a> {
    /// The value.
    pub value: &'a [u8],
    /// When it is stored.
    pub when: When<'a>,
    /// 32 bits to keep with it.
    pub client_flags: u32,
    /// Seconds to live; 0 for ever.
    pub ttl: u32,
}

impl<'a> Put<'a> {
    /// This value, in any case and for ever.
    pub fn value(value: &'a [u8]) -> Self {
        Self { value, ..Self::default() }
    }

    /// As the request that stores it.
    pub(crate) fn of(&self, key: ItemRef<'a>) -> Result<PutItem<'a>, ClientError> {
        let Self { value, when, client_flags, ttl } = *self;
        let demanded = if let When::Value(demanded) = when { demanded.len() } else { 0 };
        if value.len() + demanded > VALUE_BYTES_MAX {
            let len = value.len();
            return Err(ClientError::Usage(format!(
                "a value has at most {VALUE_BYTES_MAX} bytes, not {len}"
            )));
        }
        let mode = match when {
            When::Always => PutMode::Set(Condition::Any),
            When::Version(version) => PutMode::Set(Condition::Version(version)),
            When::Value(value) => PutMode::Set(Condition::Value(value)),
            When::Absent => PutMode::IfAbsent,
            When::Present => PutMode::IfPresent,
            When::Append => PutMode::Append,
            When::Prepend => PutMode::Prepend,
        };
        Ok(PutItem { key: key.wire, mode, client_flags, ttl, value })
    }
}

/// The request that adds `by` to a number.
pub(crate) fn increment_of(key: ItemRef<'_>, by: i64, initial: Option<u64>) -> IncrementItem<'_> {
    IncrementItem {
        key: key.wire,
        is_decrement: by < 0,
        delta: by.unsigned_abs(),
        initial: initial.map(|initial| (initial, 0)),
    }
}

/// What became of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is stored, and the item has this version now.
    Yes(u64),
    /// There is an item already.
    Exists,
    /// There is no item.
    Absent,
    /// The item has another version.
    VersionDiffers,
    /// The item has another value.
    ValueDiffers,
}

/// A request that was sent.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    id: u64,
    opcode: u8,
}

/// A reply that came before it was asked for.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub opcode: u8,
    pub status: Option<NativeStatus>,
    pub body: Vec<u8>,
}

/// A connection to a node: a call sends a request and waits for its reply, or
/// [`ClientConnection::send_get`] and [`ClientConnection::wait_item`] keep many under way.
///
/// After an error that says nothing of one request alone it is spent: open another.
#[derive(Debug)]
pub struct ClientConnection {
    stream: TcpStream,
    timeout: Duration,
    input: Vec<u8>,
    /// Where reads go first: what a length announces is not believed before it has come.
    chunk: Box<[u8]>,
    output: Vec<u8>,
    next_id: u64,
    durability: RequestDurability,
    /// Names the next request.
    token: Option<IdempotencyToken>,
    arrived: HashMap<u64, Arrived>,
    /// Requests for whose replies nobody waits any more.
    forgotten: HashSet<u64>,
    is_spent: bool,
}

impl ClientConnection {
    /// Connects to `node`, as HOST:PORT. Each step of a call (connecting to one address, each
    /// write, the reply) waits no longer than `timeout`; the node does not begin what is late by
    /// then.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub fn open(node: &str, timeout: Duration) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect { node: node.to_owned(), source };
        let mut last = None;
        for address in node.to_socket_addrs().map_err(failed)? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => return Self::over(stream, timeout).map_err(failed),
                Err(error) => last = Some(error),
            }
        }
        let unknown = || std::io::Error::new(ErrorKind::NotFound, "the host has no address");
        Err(failed(last.unwrap_or_else(unknown)))
    }

    fn over(stream: TcpStream, timeout: Duration) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self {
            stream,
            timeout,
            input: Vec::new(),
            chunk: vec![0; READ_BYTES].into(),
            output: Vec::new(),
            next_id: 0,
            durability: RequestDurability::AsNode,
            token: None,
            arrived: HashMap::new(),
            forgotten: HashSet::new(),
            is_spent: false,
        })
    }

    /// The next request is sent with this token.
    pub(crate) fn set_token(&mut self, token: Option<IdempotencyToken>) {
        self.token = token;
    }

    /// From now on each reply is waited for as this says, whatever the node's durability.
    pub fn set_durability(&mut self, durability: RequestDurability) {
        self.durability = durability;
    }

    /// The same for as long as it is not set back; returns what was set before.
    pub(crate) fn replace_durability(
        &mut self,
        durability: RequestDurability,
    ) -> RequestDurability {
        std::mem::replace(&mut self.durability, durability)
    }

    /// Asks the node what it is.
    ///
    /// # Errors
    /// Any.
    pub fn hello(&mut self, name: &str) -> Result<HelloReply, ClientError> {
        let (version_min, version_max) = (u16::from(VERSION), u16::from(VERSION));
        let request = NativeRequest::Hello(ClientHello { version_min, version_max, name });
        let body = self.call(&request)?.ok(&[])?.body;
        let hello = HelloReply::decode(&body);
        self.judge(hello.map_err(|error| ClientError::Foreign(error.to_string())))
    }

    /// Waits for a sign of life.
    ///
    /// # Errors
    /// Any.
    pub fn ping(&mut self) -> Result<(), ClientError> {
        self.call(&NativeRequest::Ping(b""))?.ok(&[]).map(|_| ())
    }

    /// Reads an item; `None` if there is none.
    ///
    /// # Errors
    /// Any.
    pub fn get(&mut self, key: ItemRef<'_>) -> Result<Option<Item>, ClientError> {
        let ticket = self.send_get(key)?;
        self.wait_item(ticket)
    }

    /// Reads an item but for its value.
    ///
    /// # Errors
    /// Any.
    pub fn get_metadata(&mut self, key: ItemRef<'_>) -> Result<Option<Item>, ClientError> {
        let get = GetItem { key: key.wire, metadata_only: true, is_quiet: true };
        let item = self.call(&NativeRequest::Get(get))?.item();
        self.judge(item)
    }

    /// Stores a value.
    ///
    /// # Errors
    /// Any. A condition that does not hold is none.
    pub fn put<'a>(&mut self, key: ItemRef<'a>, put: &Put<'a>) -> Result<Stored, ClientError> {
        let put = put.of(key)?;
        let stored = self.call(&NativeRequest::Put(put))?.stored();
        self.judge(stored)
    }

    /// Deletes an item; whether there was one.
    ///
    /// # Errors
    /// Any.
    pub fn delete(&mut self, key: ItemRef<'_>) -> Result<bool, ClientError> {
        let delete = DeleteItem { key: key.wire, condition: Condition::Any };
        let arrived = self.call(&NativeRequest::Delete(delete))?;
        Ok(arrived.ok(&[NativeStatus::Absent])?.status == Some(NativeStatus::Ok))
    }

    /// Adds `by`, which may be negative, to the number of an item, and returns what it is then. A
    /// missing number begins as `initial`, if that is given. `None` if there is none.
    ///
    /// # Errors
    /// Any; [`ClientError::Refused`] if the value is no number.
    pub fn increment(
        &mut self,
        key: ItemRef<'_>,
        by: i64,
        initial: Option<u64>,
    ) -> Result<Option<u64>, ClientError> {
        let number = self.call(&NativeRequest::Increment(increment_of(key, by, initial)))?.number();
        self.judge(number)
    }

    /// Gives an item so many seconds to live, 0 for ever; whether there is one.
    ///
    /// # Errors
    /// Any.
    pub fn touch(&mut self, key: ItemRef<'_>, ttl: u32) -> Result<bool, ClientError> {
        let touch = TouchItem { key: key.wire, ttl, with_value: false };
        let item = self.call(&NativeRequest::Touch(touch))?.item();
        Ok(self.judge(item)?.is_some())
    }

    /// Sends a read and does not wait. Each ticket has to be waited for.
    ///
    /// # Errors
    /// If the connection is spent or breaks.
    pub fn send_get(&mut self, key: ItemRef<'_>) -> Result<Ticket, ClientError> {
        let get = GetItem { key: key.wire, metadata_only: false, is_quiet: false };
        self.send(&NativeRequest::Get(get))
    }

    /// Waits for the reply to a read.
    ///
    /// # Errors
    /// Any.
    pub fn wait_item(&mut self, ticket: Ticket) -> Result<Option<Item>, ClientError> {
        let item = self.wait(ticket)?.item();
        self.judge(item)
    }

    pub(crate) fn call(&mut self, request: &NativeRequest<'_>) -> Result<Arrived, ClientError> {
        let ticket = self.send(request)?;
        self.wait(ticket)
    }

    pub(crate) fn send(&mut self, request: &NativeRequest<'_>) -> Result<Ticket, ClientError> {
        if self.is_spent {
            return Err(ClientError::Spent);
        }
        self.next_id += 1;
        let deadline = u32::try_from(self.timeout.as_micros()).unwrap_or(0);
        self.output.clear();
        let options = RequestOptions {
            deadline_microseconds: deadline,
            durability: self.durability,
            token: self.token.take(),
            ..RequestOptions::default()
        };
        put_request_as(&mut self.output, self.next_id, &options, request);
        match self.stream.write_all(&self.output) {
            Ok(()) => Ok(Ticket { id: self.next_id, opcode: request.opcode() as u8 }),
            Err(error) => Err(self.spend(self.broken(error))),
        }
    }

    /// Nobody waits for this reply any more: it is dropped when it comes.
    #[allow(clippy::needless_pass_by_value, reason = "a ticket is good for one wait")]
    pub(crate) fn forget(&mut self, ticket: Ticket) {
        if self.arrived.remove(&ticket.id).is_none() && !self.is_spent {
            self.forgotten.insert(ticket.id);
        }
    }

    #[allow(clippy::needless_pass_by_value, reason = "a ticket is good for one wait")]
    pub(crate) fn wait(&mut self, ticket: Ticket) -> Result<Arrived, ClientError> {
        let Ticket { id, opcode } = ticket;
        let deadline = now() + self.timeout;
        loop {
            if let Some(arrived) = self.arrived.remove(&id) {
                let is_its = arrived.opcode == opcode;
                return if is_its { Ok(arrived) } else { Err(self.spend(arrived.foreign())) };
            }
            if self.is_spent {
                return Err(ClientError::Spent);
            }
            match self.receive(deadline) {
                Ok((id, _)) if self.forgotten.remove(&id) => {}
                Ok((id, arrived)) => drop(self.arrived.insert(id, arrived)),
                Err(error) => return Err(self.spend(error)),
            }
        }
    }

    /// The connection is spent by an error that says nothing of one request alone.
    pub(crate) fn judge<T>(&mut self, result: Result<T, ClientError>) -> Result<T, ClientError> {
        result.map_err(|error| self.spend(error))
    }

    fn spend(&mut self, error: ClientError) -> ClientError {
        self.is_spent |= error.is_final();
        error
    }

    fn broken(&self, error: std::io::Error) -> ClientError {
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            return ClientError::Timeout { seconds: self.timeout.as_secs_f64() };
        }
        ClientError::Broken(error)
    }

    /// The next reply.
    fn receive(&mut self, deadline: Instant) -> Result<(u64, Arrived), ClientError> {
        loop {
            match NativeReply::read(&self.input, REPLY_BYTES_MAX) {
                Ok((reply, len)) => {
                    let (id, opcode) = (reply.head.id, reply.head.opcode);
                    let (status, body) = (reply.status, reply.body.to_vec());
                    if id == 0 {
                        // So a node says what concerns the connection, before it closes it.
                        let text = String::from_utf8_lossy(&body).into_owned();
                        return Err(ClientError::TurnedAway(text));
                    }
                    if id > self.next_id {
                        return Err(ClientError::Foreign("a reply to nothing".to_owned()));
                    }
                    self.input.drain(..len);
                    return Ok((id, Arrived { opcode, status, body }));
                }
                Err(Ok(needed)) => self.fill(needed, deadline)?,
                Err(Err(error)) => return Err(ClientError::Foreign(reason(error))),
            }
        }
    }

    /// Reads until the input has `needed` bytes.
    fn fill(&mut self, needed: usize, deadline: Instant) -> Result<(), ClientError> {
        while self.input.len() < needed {
            let left = deadline.saturating_duration_since(now());
            let timeout = || ClientError::Timeout { seconds: self.timeout.as_secs_f64() };
            if left.is_zero() {
                return Err(timeout());
            }
            self.stream.set_read_timeout(Some(left)).map_err(ClientError::Broken)?;
            match self.stream.read(&mut self.chunk) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(read) => self.input.extend_from_slice(&self.chunk[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(())
    }
}

/// Why bytes are no reply, for people.
pub(crate) fn reason(error: ReplyError) -> String {
    match error {
        ReplyError::Foreign => "these are no bytes of it".to_owned(),
        ReplyError::TooLong(bytes) => format!("it announces a reply of {bytes} bytes"),
        ReplyError::Checksum => "a checksum is wrong".to_owned(),
        ReplyError::Body => "a reply has another body than its opcode".to_owned(),
    }
}

impl Arrived {
    pub(crate) fn as_reply(&self) -> NativeReply<'_> {
        let head = ReplyHead { id: 0, opcode: self.opcode, has_checksum: false, hops: 0 };
        NativeReply { head, status: self.status, body: &self.body }
    }

    pub(crate) fn foreign(&self) -> ClientError {
        ClientError::Foreign(reason(ReplyError::Body))
    }

    /// The reply if its status is good, or one of `expected`.
    pub(crate) fn ok(self, expected: &[NativeStatus]) -> Result<Self, ClientError> {
        match self.status {
            Some(status) if status == NativeStatus::Ok || expected.contains(&status) => Ok(self),
            status => Err(ClientError::refused(status, &self.body)),
        }
    }

    pub(crate) fn item(self) -> Result<Option<Item>, ClientError> {
        let arrived = self.ok(&[NativeStatus::Absent])?;
        if arrived.status == Some(NativeStatus::Absent) {
            return Ok(None);
        }
        let item = arrived.as_reply().item().map_err(|_| arrived.foreign())?;
        let NativeItem { version, client_flags, expiry, value_len, value } = item;
        // The value stays where it came, without what stands before it.
        let front = arrived.body.len() - value.len();
        let mut value = arrived.body;
        value.drain(..front);
        Ok(Some(Item { version, client_flags, expiry, value_len, value }))
    }

    pub(crate) fn number(self) -> Result<Option<u64>, ClientError> {
        let arrived = self.ok(&[NativeStatus::Absent])?;
        if arrived.status == Some(NativeStatus::Absent) {
            return Ok(None);
        }
        let (number, _) = arrived.as_reply().number().map_err(|_| arrived.foreign())?;
        Ok(Some(number))
    }

    pub(crate) fn stored(self) -> Result<Stored, ClientError> {
        let arrived = self.ok(&[
            NativeStatus::Exists,
            NativeStatus::Absent,
            NativeStatus::VersionDiffers,
            NativeStatus::ValueDiffers,
        ])?;
        Ok(match arrived.status {
            Some(NativeStatus::Exists) => Stored::Exists,
            Some(NativeStatus::Absent) => Stored::Absent,
            Some(NativeStatus::VersionDiffers) => Stored::VersionDiffers,
            Some(NativeStatus::ValueDiffers) => Stored::ValueDiffers,
            _ => Stored::Yes(arrived.as_reply().version().map_err(|_| arrived.foreign())?),
        })
    }
}
