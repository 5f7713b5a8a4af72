//! Reads of several items, gathered into one request for each core that owns some of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use larder_protocol::native::{
    ITEM_BYTES_MAX, ItemKey, MULTI_GET_KEYS_MAX, MultiGet, NativeRequest, RECORD_BYTES_MAX,
};

use super::call::Call;
use super::codec::Wire;
use super::compression::expand_item;
use super::placement::Targets;
use super::waiting::wait;
use super::{Access, CallKind, Client};
use crate::clock::now;
use crate::connection::Arrived;
use crate::error::ClientError;
use crate::key::ItemRef;
use crate::multi::{ItemRead, is_left_out};

/// Bytes of the keys of one request at most, so that no request is much longer than others.
const PART_BYTES_MAX: usize = 64 << 10;

/// Bytes that a key adds to a request besides its own, and those of a request without keys.
const KEY_HEAD_BYTES: usize = 4;
const HEAD_BYTES: usize = 8;

/// A body that every node takes.
const BODY_BYTES_MIN: usize = HEAD_BYTES + KEY_HEAD_BYTES + RECORD_BYTES_MAX + ITEM_BYTES_MAX;

/// A read of several items that is under way: a future for tasks, and something to wait for for
/// threads. It gives an answer for each key, in the order of the keys; that one item cannot be read
/// says nothing of the others.
#[must_use = "a read may stay unsent until it is waited for or awaited"]
pub struct MultiRead {
    client: Client,
    deadline: Instant,
    parts: Vec<Part>,
    reads: Vec<Option<ItemRead>>,
}

/// What one core is asked for.
struct Part {
    /// The places of its answers.
    places: Vec<usize>,
    /// The body that asks for them; empty where each item has a request of its own.
    body: Vec<u8>,
    call: Call<Vec<ItemRead>>,
}

impl Client {
    /// Reads items of any namespaces and records. What the same core of a node owns is asked for
    /// with one request, or some where there are more than 1,024 keys or 64 KiB of them, and all go
    /// at once; what has no room in a reply is asked for again. Each item is read by itself: they
    /// are not shown as of one moment.
    ///
    /// ```no_run
    /// # use larder_client::{Client, ClientError, ItemRef};
    /// # fn read(client: &Client) -> Result<(), ClientError> {
    /// let names = ["name", "mail", "photo"];
    /// let keys = names.map(|name| ItemRef::new(0, b"user:1", name.as_bytes()));
    /// let keys = keys.into_iter().collect::<Result<Vec<_>, _>>()?;
    /// for (name, item) in names.iter().zip(client.multi_get(&keys).wait()) {
    ///     println!("{name}: {:?}", item?.map(|item| item.value));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn multi_get(&self, keys: &[ItemRef<'_>]) -> MultiRead {
        let mut groups: BTreeMap<(u32, Targets, Option<u16>), Vec<usize>> = BTreeMap::new();
        for (place, ItemRef { wire: key }) in keys.iter().enumerate() {
            let targets = self.core.placement.of(key.record);
            let layout = self.core.nodes[targets.at(0)].layout();
            let owner = layout.owner(self.route(key.record, targets));
            groups.entry((key.namespace, targets, owner)).or_default().push(place);
        }
        let mut parts = Vec::new();
        for ((_, targets, _), places) in groups {
            self.add_parts(targets, places, |place| keys[place].wire, &mut parts);
        }
        let deadline = now() + self.timeout;
        let reads = keys.iter().map(|_| None).collect();
        MultiRead { client: self.clone(), deadline, parts, reads }
    }

    /// Asks for items that one core owns, in as many requests as they take.
    fn add_parts<'k>(
        &self,
        targets: Targets,
        places: Vec<usize>,
        key_at: impl Fn(usize) -> ItemKey<'k>,
        parts: &mut Vec<Part>,
    ) {
        if self.core.settings.wire == Wire::Meta {
            parts.extend(places.into_iter().map(|place| self.lone_part(place, key_at(place))));
            return;
        }
        let told = self.core.nodes[targets.at(0)].body_bytes_max() as usize;
        let bytes_max = told.clamp(BODY_BYTES_MIN, PART_BYTES_MAX);
        let (mut asked, mut keys, mut bytes) = (Vec::new(), Vec::new(), HEAD_BYTES);
        for place in places {
            let key = key_at(place);
            let more = KEY_HEAD_BYTES + key.record.len() + key.item.len();
            if keys.len() == MULTI_GET_KEYS_MAX || bytes + more > bytes_max {
                parts.push(self.part(std::mem::take(&mut asked), &keys, targets));
                keys.clear();
                bytes = HEAD_BYTES;
            }
            bytes += more;
            asked.push(place);
            keys.push(key);
        }
        parts.push(self.part(asked, &keys, targets));
    }

    fn part(&self, places: Vec<usize>, keys: &[ItemKey<'_>], targets: Targets) -> Part {
        let body = MultiGet::body(keys, false, false);
        let request = MultiGet::read(&body).expect("each key was checked when it was made");
        let request = NativeRequest::MultiGet(request);
        let record = Some(keys[0].record);
        let (count, expands) = (keys.len(), self.core.settings.compress_from.is_some());
        let read = move |arrived: Arrived| {
            let reads = arrived.reads(count)?.into_iter();
            let plain = |read: ItemRead| read?.map(expand_item).transpose();
            Ok(if expands { reads.map(plain).collect() } else { reads.collect() })
        };
        let call = match self.begin(CallKind::MultiGet, record, &request, Access::Read, targets) {
            Ok(operation) => Call::new(&self.core, [operation], read),
            Err(error) => Call::failed(error),
        };
        Part { places, body, call }
    }

    /// One item, where the protocol asks for one at a time.
    fn lone_part(&self, place: usize, key: ItemKey<'_>) -> Part {
        let call = self.get(ItemRef { wire: key }).map(|item| vec![Ok(item)]);
        Part { places: vec![place], body: Vec::new(), call }
    }
}

impl MultiRead {
    /// Waits for all answers, at most until the deadline.
    pub fn wait(self) -> Vec<ItemRead> {
        wait(self)
    }

    /// Takes the answers of a part. What had no room in them is asked for again, unless there was
    /// room for nothing, or no time is left.
    fn take(&mut self, part: &Part, answer: Result<Vec<ItemRead>, ClientError>) {
        let answers = match answer {
            Ok(answers) => answers,
            Err(error) => {
                part.places.iter().for_each(|place| self.reads[*place] = Some(Err(error.again())));
                return;
            }
        };
        let left = self.deadline.saturating_duration_since(now());
        let goes_on = !left.is_zero() && !answers.iter().all(is_left_out);
        let mut missing = Vec::new();
        for (at, (place, read)) in part.places.iter().zip(answers).enumerate() {
            if goes_on && is_left_out(&read) {
                missing.push((at, *place));
            } else {
                self.reads[*place] = Some(read);
            }
        }
        if missing.is_empty() {
            return;
        }
        let request = MultiGet::read(&part.body).expect("it was sent");
        let keys: Vec<ItemKey<'_>> = request.gets().map(|get| get.key).collect();
        let (keys, places): (Vec<_>, Vec<_>) =
            missing.into_iter().map(|(at, place)| (keys[at], place)).unzip();
        let targets = self.client.core.placement.of(keys[0].record);
        let part = self.client.with_timeout(left).part(places, &keys, targets);
        self.parts.push(part);
    }
}

impl Future for MultiRead {
    type Output = Vec<ItemRead>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut at = 0;
        while let Some(part) = self.parts.get_mut(at) {
            match Pin::new(&mut part.call).poll(context) {
                Poll::Pending => at += 1,
                Poll::Ready(answer) => {
                    let part = self.parts.swap_remove(at);
                    self.take(&part, answer);
                }
            }
        }
        if self.parts.is_empty() {
            Poll::Ready(self.reads.drain(..).flatten().collect())
        } else {
            Poll::Pending
        }
    }
}

impl std::fmt::Debug for MultiRead {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (keys, parts) = (self.reads.len(), self.parts.len());
        formatter.debug_struct("MultiRead").field("keys", &keys).field("parts", &parts).finish()
    }
}
