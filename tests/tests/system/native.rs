//! A blocking client of the native protocol, as small as the tests need it.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use larder_protocol::native::reply::{NativeReply, ReplyHead};
use larder_protocol::native::{
    Condition, DeleteItem, DeleteItems, GetItem, GetItems, IncrementItem, ItemKey, ItemRange,
    MutateRecord, NativePage, NativeRequest, NativeStatus, PageLimits, PutItem, PutMode,
    put_request,
};
use larder_tests::client::PATIENCE;

/// The longest body that is taken, in bytes.
const BODY_BYTES_MAX: u32 = 16 << 20;

/// A connection.
pub(super) struct NativeClient {
    stream: TcpStream,
    input: Vec<u8>,
    id: u64,
}

/// How a request has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replied {
    pub id: u64,
    pub status: NativeStatus,
    pub body: Vec<u8>,
}

impl Replied {
    /// The reply as it came, without its head.
    fn as_reply(&self) -> NativeReply<'_> {
        let head = ReplyHead { id: self.id, opcode: 0, has_checksum: false, hops: 0 };
        NativeReply { head, status: Some(self.status), body: &self.body }
    }

    /// The number that an increment has made.
    pub(super) fn number(&self) -> u64 {
        self.as_reply().number().expect("a number and its version").0
    }
}

impl NativeClient {
    pub(super) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, input: Vec::new(), id: 0 })
    }

    /// Sends requests in one write; returns the id of the first, which the others' follow.
    pub(super) fn send(&mut self, requests: &[NativeRequest<'_>]) -> io::Result<u64> {
        let first = self.id + 1;
        let mut bytes = Vec::new();
        for request in requests {
            self.id += 1;
            put_request(&mut bytes, self.id, 0, false, request);
        }
        self.stream.write_all(&bytes)?;
        Ok(first)
    }

    /// The next reply, in whatever order they come.
    pub(super) fn receive(&mut self) -> io::Result<Replied> {
        loop {
            match NativeReply::read(&self.input, BODY_BYTES_MAX) {
                Ok((reply, len)) => {
                    let status = reply.status.expect("a status of this version");
                    let (id, body) = (reply.head.id, reply.body.to_vec());
                    self.input.drain(..len);
                    return Ok(Replied { id, status, body });
                }
                Err(Ok(_)) => {
                    let mut chunk = [0; 65_536];
                    match self.stream.read(&mut chunk)? {
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        read => self.input.extend_from_slice(&chunk[..read]),
                    }
                }
                Err(Err(error)) => panic!("no reply: {error:?}"),
            }
        }
    }

    pub(super) fn ask(&mut self, request: &NativeRequest<'_>) -> io::Result<Replied> {
        let id = self.send(std::slice::from_ref(request))?;
        let replied = self.receive()?;
        assert_eq!(replied.id, id, "one request is under way");
        Ok(replied)
    }

    /// Reads an item.
    pub(super) fn get(&mut self, key: ItemKey<'_>) -> io::Result<Option<Vec<u8>>> {
        let get = GetItem { key, metadata_only: false, is_quiet: false };
        let replied = self.ask(&NativeRequest::Get(get))?;
        match replied.status {
            NativeStatus::Ok => {
                let item = replied.as_reply().item().expect("an item");
                Ok(Some(item.value.to_vec()))
            }
            NativeStatus::Absent => Ok(None),
            status => panic!("a read of {key:?} is answered {status:?}"),
        }
    }

    /// Reads a record's items in order, page by page, each of so many items at most.
    pub(super) fn items(
        &mut self,
        record: &[u8],
        range: ItemRange<'_>,
        is_descending: bool,
        items_max: u32,
    ) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let limits = PageLimits { items_max, ..PageLimits::default() };
        let (mut items, mut token) = (Vec::new(), Vec::new());
        loop {
            let namespace = 0;
            let get = GetItems {
                namespace,
                record,
                range,
                keys: None,
                is_descending,
                limits,
                token: &token,
            };
            let replied = self.ask(&NativeRequest::GetItems(get))?;
            assert_eq!(replied.status, NativeStatus::Ok, "a page");
            let page = NativePage::decode(&replied.body).expect("a page");
            for item in &page.items {
                let value = item.value.expect("values are asked for");
                items.push((item.item.to_vec(), value.to_vec()));
            }
            match page.next {
                Some(next) => token = next.to_vec(),
                None => return Ok(items),
            }
        }
    }
}

/// The key of an item of the default namespace.
pub(super) fn key<'a>(record: &'a [u8], item: &'a [u8]) -> ItemKey<'a> {
    ItemKey { namespace: 0, record, item }
}

pub(super) fn put<'a>(key: ItemKey<'a>, mode: PutMode<'a>, value: &'a [u8]) -> NativeRequest<'a> {
    NativeRequest::Put(PutItem { key, mode, client_flags: 0, ttl: 0, value })
}

pub(super) fn delete(key: ItemKey<'_>) -> NativeRequest<'_> {
    NativeRequest::Delete(DeleteItem { key, condition: Condition::Any })
}

pub(super) fn increment(key: ItemKey<'_>, delta: u64) -> NativeRequest<'_> {
    let (is_decrement, initial) = (false, None);
    NativeRequest::Increment(IncrementItem { key, is_decrement, delta, initial })
}

/// The request with a body that [`MutateRecord::body`] has made.
pub(super) fn mutate(body: &[u8]) -> NativeRequest<'_> {
    NativeRequest::Mutate(MutateRecord::read(body).expect("a good body"))
}

/// Deletes the items of a record from `from` on and below `to`.
pub(super) fn delete_range<'a>(
    record: &'a [u8],
    from: &'a [u8],
    to: &'a [u8],
) -> NativeRequest<'a> {
    let range = ItemRange::Between { from: Some(from), to: Some(to) };
    NativeRequest::DeleteItems(DeleteItems { namespace: 0, record, range })
}
