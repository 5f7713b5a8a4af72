//! Which values are compressed, and when.
//!
//! A value of up to one chunk is compressed where it is appended. A longer one would hold the core
//! up there: it is compressed before that, chunk by chunk, by the task that carries its operation
//! out, and no two at a time. What it came to is used at once or not at all.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use larder_runtime::env::Env;

use super::Shard;
use super::admission::NotApplied;
use super::locate::Located;
use super::namespaces::{NamespaceCompression, NamespaceOptions};
use crate::compression::{CHUNK_BYTES, CompressedValue, Compressing, ValueCompressor};
use crate::operation::{self, Context, Effect, Operation};
use crate::signal::{Exclusive, Held};
use crate::value_log::record::Record;

/// What compressing values has come to since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompressionCounters {
    /// Values that were stored compressed.
    pub values: u64,
    /// Bytes of these values, as clients sent them.
    pub bytes_before: u64,
    /// Bytes that they take compressed.
    pub bytes_after: u64,
    /// Values that are long enough and are stored as they are: it would not have saved an eighth.
    pub incompressible: u64,
}

/// A shard's settings and means for compressing values.
pub(super) struct Compression {
    /// For namespaces without a setting of their own.
    from_default: Option<usize>,
    /// By namespace: from which length on values are compressed, in bytes.
    from: RefCell<BTreeMap<u32, Option<usize>>>,
    /// Values that have at most so many bytes live in the index, as they are.
    inline_bytes_max: usize,
    compressor: RefCell<ValueCompressor>,
    /// Held from when a long value is begun with until it is appended.
    long_value: Exclusive,
    counters: Cell<CompressionCounters>,
}

impl Compression {
    pub(super) fn new(from_default: Option<usize>, inline_bytes_max: usize) -> Self {
        Self {
            from_default,
            from: RefCell::default(),
            inline_bytes_max,
            compressor: RefCell::default(),
            long_value: Exclusive::default(),
            counters: Cell::default(),
        }
    }

    pub(super) fn counters(&self) -> CompressionCounters {
        self.counters.get()
    }

    /// Whether a value of so many bytes is to be compressed.
    fn wants(&self, namespace: u32, len: usize) -> bool {
        let own = self.from.borrow().get(&namespace).copied();
        let from = own.unwrap_or(self.from_default);
        len > self.inline_bytes_max && from.is_some_and(|from| len >= from)
    }

    /// Sets what is compressed of all namespaces.
    pub(super) fn set_all(&self, namespaces: &BTreeMap<u32, NamespaceOptions>) {
        let mut from = self.from.borrow_mut();
        from.clear();
        for (&namespace, options) in namespaces {
            match options.compression {
                NamespaceCompression::AsShard => {}
                NamespaceCompression::From(bytes) => drop(from.insert(namespace, Some(bytes))),
                NamespaceCompression::Never => drop(from.insert(namespace, None)),
            }
        }
    }

    /// Counts a value that was stored.
    pub(super) fn count(&self, namespace: u32, record: &Record<'_>) {
        let mut counters = self.counters.get();
        let len = record.value_len();
        if record.original.is_some() {
            counters.values += 1;
            counters.bytes_before += u64::from(len);
            counters.bytes_after += record.payload.len() as u64;
        } else if self.wants(namespace, len as usize) {
            counters.incompressible += 1;
        }
        self.counters.set(counters);
    }
}

/// What was found out ahead about the value that an operation is going to store.
#[derive(Default)]
pub(super) enum Tried {
    /// Nothing: there is none, or it is short.
    #[default]
    Nothing,
    /// It is stored as it is.
    InVain,
    /// This is stored.
    Compressed(CompressedValue),
}

impl Tried {
    pub(super) fn compressed(&self) -> Option<&CompressedValue> {
        match self {
            Self::Compressed(compressed) => Some(compressed),
            Self::Nothing | Self::InVain => None,
        }
    }
}

/// Something that was compressed ahead. Nobody else does so until it is dropped.
pub(super) type Ahead<'a, T> = (T, Option<Held<'a>>);

impl<E: Env> Shard<E> {
    /// Sets from which length on values of `namespace` are compressed, in bytes, from now on;
    /// `None` for not at all. What is stored stays as it is. A start knows nothing of it.
    pub fn set_compression(&self, namespace: u32, from: Option<usize>) {
        self.compression.from.borrow_mut().insert(namespace, from);
    }

    /// The form in which `value` is stored, if it is compressed, given what was found out ahead.
    ///
    /// # Errors
    ///
    /// [`NotApplied::LookAgain`] if the value has to be compressed ahead and was not.
    pub(super) fn compressed<'a>(
        &self,
        namespace: u32,
        value: &[u8],
        tried: &'a Tried,
    ) -> Result<Option<Cow<'a, CompressedValue>>, NotApplied> {
        match tried {
            Tried::Compressed(compressed) => {
                assert_eq!(compressed.original.len as usize, value.len(), "it is of another value");
                debug_assert_eq!(compressed.original.checksum, crc32c::crc32c(value));
                return Ok(Some(Cow::Borrowed(compressed)));
            }
            Tried::InVain => return Ok(None),
            Tried::Nothing if !self.compression.wants(namespace, value.len()) => return Ok(None),
            Tried::Nothing => {}
        }
        let mut compressor = self.compression.compressor.borrow_mut();
        if value.len() <= CHUNK_BYTES {
            return Ok(compressor.compress(value).map(Cow::Owned));
        }
        match Compressing::begin(value, &mut compressor) {
            Some(_) => Err(NotApplied::LookAgain),
            None => Ok(None),
        }
    }

    /// Compresses the value that `operation` is going to store if that takes longer than a turn
    /// may. Whoever has to wait for room in the log learns it before.
    pub(super) async fn compress_ahead(
        &self,
        (namespace, key): (u32, &[u8]),
        operation: &Operation<'_>,
        located: &Located,
        now: u32,
    ) -> Result<Ahead<'_, Tried>, NotApplied> {
        let known = located.value.as_ref().map_or(0, Vec::len);
        if !operation.may_write() || operation.value_len() + known <= CHUNK_BYTES {
            return Ok((Tried::Nothing, None));
        }
        let stored = || self.value_stored(namespace, operation, located, now);
        let long = || stored().filter(|value| value.len() > CHUNK_BYTES);
        if long().is_none() {
            return Ok((Tried::Nothing, None));
        }
        self.ask_room(key.len())?;
        // What an append makes is made anew afterwards: whoever waits here holds nothing of it.
        let held = self.compression.long_value.enter().await;
        let tried = match long() {
            Some(value) => self.compress_in_chunks(&value).await,
            None => Tried::Nothing,
        };
        Ok((tried, Some(held)))
    }

    /// The same for operations that are done together: whatever the length of their values.
    pub(super) async fn compress_all_ahead<'a>(
        &self,
        operations: impl Iterator<Item = (u32, &'a Operation<'a>, &'a Located)>,
        now: u32,
    ) -> Result<Ahead<'_, Vec<Tried>>, NotApplied> {
        let (mut all, mut held) = (Vec::new(), None);
        for (namespace, operation, located) in operations {
            let mut tried = Tried::Nothing;
            if let Some(value) = self.value_stored(namespace, operation, located, now) {
                if held.is_none() {
                    self.ask_room(0)?;
                    held = Some(self.compression.long_value.enter().await);
                }
                tried = self.compress_in_chunks(&value).await;
            }
            all.push(tried);
        }
        Ok((all, held))
    }

    /// The value that `operation` is going to store, if it is one to be compressed.
    fn value_stored<'a>(
        &self,
        namespace: u32,
        operation: &Operation<'a>,
        located: &'a Located,
        now: u32,
    ) -> Option<Cow<'a, [u8]>> {
        let context = Context {
            version_next: self.log.sequence_next(),
            value_bytes_max: self.options.value_bytes_max,
        };
        let value = match operation::decide(located.current(now), operation, context).effect {
            Effect::Put(_, value) => value,
            Effect::Remark(_) => {
                // A value is only written anew if its place is about to be freed.
                located.pointer().filter(|pointer| self.is_leaving(pointer.segment))?;
                Cow::Borrowed(located.value.as_deref()?)
            }
            Effect::None | Effect::Remove => return None,
        };
        self.compression.wants(namespace, value.len()).then_some(value)
    }

    /// Whether a change would be made now, as far as room is concerned.
    fn ask_room(&self, key_len: usize) -> Result<(), NotApplied> {
        let state = self.state.borrow();
        self.check_space(&state, false)?;
        let made = self.log.make_room(key_len, 0);
        made.map_err(|refused| self.not_applied(&state, false, refused))
    }

    /// Compresses a value; others have the core between its chunks.
    async fn compress_in_chunks(&self, value: &[u8]) -> Tried {
        let compressor = &self.compression.compressor;
        let begun = Compressing::begin(value, &mut compressor.borrow_mut());
        let Some(mut compressing) = begun else { return Tried::InVain };
        while compressing.step(&mut compressor.borrow_mut()) {
            self.env.yield_if_needed().await;
        }
        compressing.finish().map_or(Tried::InVain, Tried::Compressed)
    }
}
