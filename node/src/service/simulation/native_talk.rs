//! What a client of the native protocol says, and what each of its requests must be answered.

use std::collections::BTreeMap;

use larder_protocol::native::reply::NativeReply;
use larder_protocol::native::{
    Condition, DeleteItem, GetItem, IncrementItem, ItemKey, MultiGet, NamespaceChange,
    NativeRequest, NativeStatus, PutItem, PutMode, SettingsChange, put_request,
};
use larder_runtime::random::Random;

use super::client::Talk;
use super::memcached_talk::any_value;
use crate::limits::PAGE_BYTES_MAX;

const RECORDS: usize = 3;
const ITEMS: usize = 3;

/// A key of the client's own: record and item.
type Name = (String, String);

/// What a request must be answered.
#[derive(Debug)]
enum Due {
    /// With this status, and nothing more.
    Status(NativeStatus),
    /// With some version.
    Version,
    /// With an item of this value.
    Value(Vec<u8>),
    /// With this number.
    Number(u64),
    /// With these bytes.
    Echo(Vec<u8>),
    /// With these values; where the connection's reads of several items may come to more than they
    /// may, some may be answered with `busy` instead.
    Values { values: Vec<Option<Vec<u8>>>, may_be_busy: bool },
    /// With anything that says that it went well.
    Anything,
}

/// A client that has its records for itself. Replies come in any order, each once.
pub(super) struct NativeTalk {
    number: usize,
    value_bytes_max: usize,
    items: BTreeMap<Name, Vec<u8>>,
    counted: Option<u64>,
    next_id: u64,
    due: BTreeMap<u64, Due>,
    /// The beginning of a reply that is not whole.
    part: Vec<u8>,
}

impl NativeTalk {
    pub(super) fn new(number: usize, value_bytes_max: usize) -> Self {
        Self {
            number,
            value_bytes_max,
            items: BTreeMap::new(),
            counted: None,
            next_id: number as u64 * 1000,
            due: BTreeMap::new(),
            part: Vec::new(),
        }
    }

    fn name(&self, random: &mut Random) -> Name {
        let record = format!("native-{}-{}", self.number, random.index(RECORDS));
        (record, format!("item-{}", random.index(ITEMS)))
    }

    fn ask(&mut self, request: &NativeRequest<'_>, checked: bool, due: Due, out: &mut Vec<u8>) {
        put_request(out, self.next_id, 0, checked, request);
        self.due.insert(self.next_id, due);
        self.next_id += 1;
    }

    fn get_many(&mut self, random: &mut Random, out: &mut Vec<u8>) {
        let names: Vec<Name> = (0..random.count(1..=20)).map(|_| self.name(random)).collect();
        let keys: Vec<ItemKey<'_>> = names.iter().map(key_of).collect();
        let body = MultiGet::body(&keys, false, false);
        let multi = MultiGet::read(&body).expect("a good body");
        let values = names.iter().map(|name| self.items.get(name).cloned()).collect();
        let checked = random.percent(30);
        let due = Due::Values { values, may_be_busy: false };
        self.ask(&NativeRequest::MultiGet(multi), checked, due, out);
        self.note_busy();
    }

    /// Notes whether the reads of several items that are under way may come to more than they may.
    fn note_busy(&mut self) {
        let len = |value: &Option<Vec<u8>>| 100 + value.as_ref().map_or(0, Vec::len);
        let bytes = |due: &Due| match due {
            Due::Values { values, .. } => values.iter().map(len).sum(),
            _ => 0,
        };
        if self.due.values().map(bytes).sum::<usize>() <= PAGE_BYTES_MAX {
            return;
        }
        for due in self.due.values_mut() {
            if let Due::Values { may_be_busy, .. } = due {
                *may_be_busy = true;
            }
        }
    }

    fn count(&mut self, random: &mut Random, out: &mut Vec<u8>) {
        let (record, delta) = (format!("native-count-{}", self.number), random.below(100));
        let key = ItemKey { namespace: 0, record: record.as_bytes(), item: b"" };
        let number = self.counted.map_or(7, |number| number + delta);
        self.counted = Some(number);
        let count = IncrementItem { key, is_decrement: false, delta, initial: Some((7, 0)) };
        self.ask(&NativeRequest::Increment(count), true, Due::Number(number), out);
    }

    fn on_item(&mut self, random: &mut Random, out: &mut Vec<u8>) {
        let name = self.name(random);
        let key = key_of(&name);
        let checked = random.percent(30);
        match random.index(3) {
            0 => {
                let due = match self.items.get(&name) {
                    Some(value) => Due::Value(value.clone()),
                    None => Due::Status(NativeStatus::Absent),
                };
                let get = GetItem { key, metadata_only: false, is_quiet: random.percent(10) };
                self.ask(&NativeRequest::Get(get), checked, due, out);
            }
            1 if random.percent(40) => {
                let is_there = self.items.remove(&name).is_some();
                let status = if is_there { NativeStatus::Ok } else { NativeStatus::Absent };
                let delete = DeleteItem { key, condition: Condition::Any };
                self.ask(&NativeRequest::Delete(delete), checked, Due::Status(status), out);
            }
            _ => {
                let value = any_value(random, self.value_bytes_max);
                let put = PutItem {
                    key,
                    mode: PutMode::Set(Condition::Any),
                    client_flags: 0,
                    ttl: 0,
                    value: &value,
                };
                self.ask(&NativeRequest::Put(put), checked, Due::Version, out);
                self.items.insert(name, value);
            }
        }
    }

    fn answered(&mut self, reply: &NativeReply<'_>) {
        let id = reply.head.id;
        let due = self.due.remove(&id);
        let due = due.unwrap_or_else(|| panic!("client {}: nobody asked {id}", self.number));
        let status = reply.status.expect("a known status");
        let is_met = match &due {
            Due::Status(expected) => status == *expected,
            Due::Version => status == NativeStatus::Ok && reply.version().is_ok(),
            Due::Value(value) => reply.item().is_ok_and(|item| item.value == value),
            Due::Number(number) => reply.number().is_ok_and(|(found, _)| found == *number),
            Due::Echo(bytes) => reply.body == bytes,
            Due::Anything => status == NativeStatus::Ok,
            Due::Values { values, may_be_busy } => reply.multi(values.len()).is_ok_and(|entries| {
                entries.iter().zip(values).all(|(entry, value)| match (entry, value) {
                    (Ok(item), Some(value)) => item.value == value,
                    (Err(Some(NativeStatus::Absent)), None) => true,
                    (Err(Some(NativeStatus::Busy)), _) => *may_be_busy,
                    _ => false,
                })
            }),
        };
        if !is_met {
            let due: String = format!("{due:?}").chars().take(300).collect();
            panic!("client {}, request {id}: {status:?} instead of {due}", self.number);
        }
    }
}

fn key_of((record, item): &Name) -> ItemKey<'_> {
    ItemKey { namespace: 0, record: record.as_bytes(), item: item.as_bytes() }
}

impl Talk for NativeTalk {
    fn say(&mut self, random: &mut Random, out: &mut Vec<u8>) {
        match random.index(12) {
            0..=7 => self.on_item(random, out),
            8 => self.get_many(random, out),
            9 => self.count(random, out),
            10 => {
                let len = random.index(65);
                let bytes = random.bytes(len);
                self.ask(&NativeRequest::Ping(&bytes), false, Due::Echo(bytes.clone()), out);
            }
            _ => {
                let name = format!("names-{}-{}", self.number, self.next_id);
                let change = NamespaceChange { name: &name, settings: SettingsChange::default() };
                self.ask(&NativeRequest::CreateNamespace(change), false, Due::Anything, out);
            }
        }
    }

    fn say_goodbye(&mut self, _: &mut Vec<u8>) -> bool {
        false
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.part.extend_from_slice(bytes);
        let part = std::mem::take(&mut self.part);
        let mut rest = &part[..];
        loop {
            match NativeReply::read(rest, 64 << 20) {
                Ok((reply, len)) => {
                    self.answered(&reply);
                    rest = &rest[len..];
                }
                Err(Ok(_)) => break,
                Err(Err(error)) => panic!("client {}: no reply: {error:?}", self.number),
            }
        }
        self.part = rest.to_vec();
    }

    fn unanswered(&self) -> usize {
        self.due.len()
    }
}
