//! Pages of items, and ranges: `schema/items.fbs`, `schema/scan.fbs`, `schema/page.fbs` and
//! `schema/delete_items.fbs`.

use flatbuffers::{
    FlatBufferBuilder, InvalidFlatbuffer, TableFinishedWIPOffset, UnionWIPOffset, WIPOffset,
};

use super::request::BodyError;
use super::structured::{Reader, StructureError, slot, told, write_scalars, write_table};
use super::{ITEM_BYTES_MAX, ItemKeys, RECORD_BYTES_MAX};

/// The longest token of a page, in bytes.
pub const PAGE_TOKEN_BYTES_MAX: usize = 4096;

/// The schemas' `file_identifier`s.
const GET_ITEMS: &str = "LRGI";
const SCAN: &str = "LRSC";
const PAGE: &str = "LRPG";
const DELETE_ITEMS: &str = "LRDI";

/// The least that an item of a page takes in its body, in bytes: the offset to its table, the
/// table's offset to its own layout and to its key, and the key's length.
const PAGE_ITEM_BYTES_MIN: usize = 16;

/// Which items of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemRange<'a> {
    /// Those whose keys begin so; all if it is empty.
    Prefix(&'a [u8]),
    /// Those between two keys.
    Between {
        /// The least key; `None` for the first.
        from: Option<&'a [u8]>,
        /// The key that all are below; `None` to the last.
        to: Option<&'a [u8]>,
    },
}

/// What a page holds. 0 is what the node takes for usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageLimits {
    /// Items at most.
    pub items_max: u32,
    /// Bytes of keys and values at most.
    pub bytes_max: u32,
    /// Longer values are left out, in bytes; 0 is no limit.
    pub value_bytes_max: u32,
    /// Whether all values are left out.
    pub keys_only: bool,
    /// The lease whose moment is shown; 0 for the present. Of a lease a SCAN shows its shard alone.
    pub lease: u64,
    /// Whether what cannot be read is left out, and the page says so. Otherwise it ends there.
    pub passes_damage: bool,
}

/// A page of a record's items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetItems<'a> {
    /// The namespace's number.
    pub namespace: u32,
    /// The record id.
    pub record: &'a [u8],
    /// Which items.
    pub range: ItemRange<'a>,
    /// Only these, in this order; the range then has all items, and none of them comes first.
    pub keys: Option<ItemKeys<'a>>,
    /// Whether the greatest key comes first.
    pub is_descending: bool,
    /// How much.
    pub limits: PageLimits,
    /// What the page before said of the next; empty for the first page.
    pub token: &'a [u8],
}

/// A page of a namespace's items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanItems<'a> {
    /// The namespace's number.
    pub namespace: u32,
    /// How much.
    pub limits: PageLimits,
    /// What the page before said of the next; empty for the first page.
    pub token: &'a [u8],
    /// Whether the greatest key comes first.
    pub is_descending: bool,
}

/// An item of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativePageItem<'a> {
    /// The record id; `None` in a page of one record.
    pub record: Option<&'a [u8]>,
    /// The item key.
    pub item: &'a [u8],
    /// Its version.
    pub version: u64,
    /// The client's own bits.
    pub client_flags: u32,
    /// Unix second at which it is gone; 0 for never.
    pub expiry: u32,
    /// How long its value is, in bytes, also where that is left out.
    pub value_len: u32,
    /// Its value, unless it is left out.
    pub value: Option<&'a [u8]>,
}

/// Items in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NativePage<'a> {
    /// The items.
    pub items: Vec<NativePageItem<'a>>,
    /// The token of the next page; `None` if there is no more.
    pub next: Option<&'a [u8]>,
    /// Whether something was left out that cannot be read.
    pub is_damaged: bool,
}

type Builder = FlatBufferBuilder<'static>;

fn write_bytes(builder: &mut Builder, bytes: Option<&[u8]>) -> Option<WIPOffset<UnionWIPOffset>> {
    // Copied as a whole: a zero byte follows that belongs to nothing.
    bytes.map(|bytes| builder.create_byte_string(bytes).as_union_value())
}

fn push(builder: &mut Builder, index: usize, written: Option<WIPOffset<UnionWIPOffset>>) {
    if let Some(written) = written {
        builder.push_slot_always(slot(index), written);
    }
}

fn finish(
    mut builder: Builder,
    root: WIPOffset<TableFinishedWIPOffset>,
    identifier: &str,
    out: &mut Vec<u8>,
) {
    builder.finish(root, Some(identifier));
    out.extend_from_slice(builder.finished_data());
}

impl PageLimits {
    /// Writes four fields from `first` on, and two from `more` on.
    fn write(&self, builder: &mut Builder, first: usize, more: usize) {
        builder.push_slot(slot(more), self.lease, 0);
        builder.push_slot(slot(first), self.items_max, 0);
        builder.push_slot(slot(first + 1), self.bytes_max, 0);
        builder.push_slot(slot(first + 2), self.value_bytes_max, 0);
        builder.push_slot(slot(first + 3), self.keys_only, false);
        builder.push_slot(slot(more + 1), self.passes_damage, false);
    }
}

/// What a body says before it is known to make sense.
type Checked<T> = Result<T, BodyError>;

fn flag(byte: u8, reason: BodyError) -> Checked<bool> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reason),
    }
}

const ORDER: BodyError = "there is no such order";
const KEYS_ONLY: BodyError = "keys_only is 0 or 1";
const PASSES_DAMAGE: BodyError = "passes_damage is 0 or 1";

fn checked_token(token: &[u8]) -> Checked<&[u8]> {
    let is_long = token.len() > PAGE_TOKEN_BYTES_MAX;
    if is_long { Err("a page's token has at most 4,096 bytes") } else { Ok(token) }
}

impl<'a> GetItems<'a> {
    /// Appends the body.
    pub(super) fn put_body(&self, out: &mut Vec<u8>) {
        let mut builder = Builder::with_capacity(256);
        let [prefix, from, to] = bounds_of(self.range);
        let token = Some(self.token).filter(|token| !token.is_empty());
        let record = write_bytes(&mut builder, Some(self.record));
        let [prefix, from, to, token] =
            [prefix, from, to, token].map(|bytes| write_bytes(&mut builder, bytes));
        let lengths = self.keys.map(|keys| write_scalars(&mut builder, &keys.length_numbers()));
        let keys = write_bytes(&mut builder, self.keys.map(|keys| keys.bytes()));
        let root = write_table(&mut builder, |builder| {
            let vectors = [
                (1, record),
                (2, prefix),
                (3, from),
                (4, to),
                (10, token),
                (11, lengths),
                (12, keys),
            ];
            for (index, bytes) in vectors {
                push(builder, index, bytes);
            }
            builder.push_slot(slot(0), self.namespace, 0);
            builder.push_slot(slot(5), u8::from(self.is_descending), 0);
            self.limits.write(builder, 6, 13);
        });
        finish(builder, root, GET_ITEMS, out);
    }

    /// Reads a body.
    pub(super) fn read(body: &'a [u8]) -> Checked<Self> {
        told(Reader::read(body, GET_ITEMS, |reader, root| {
            let [
                namespace,
                record,
                prefix,
                from,
                to,
                order,
                limits @ ..,
                token,
                lengths,
                keys,
                lease,
                passes_damage,
            ] = reader.fields::<15>(root)?;
            let namespace = reader.u32(namespace)?;
            let record = reader.bytes(record)?;
            let [prefix, from, to] = [
                reader.optional_bytes(prefix)?,
                reader.optional_bytes(from)?,
                reader.optional_bytes(to)?,
            ];
            let order = reader.u8(order)?;
            let limits = read_limits(reader, limits, [lease, passes_damage])?;
            let token = reader.bytes(token)?;
            let (lengths, keys) = (reader.u16_bytes(lengths)?, reader.optional_bytes(keys)?);
            let which = [prefix, from, to, lengths, keys];
            Ok(Self::check(namespace, record, which, order, limits, token))
        }))
    }

    fn check(
        namespace: u32,
        record: &'a [u8],
        [prefix, from, to, lengths, keys]: [Option<&'a [u8]>; 5],
        order: u8,
        limits: Checked<PageLimits>,
        token: &'a [u8],
    ) -> Checked<Self> {
        let bounds = [prefix, from, to];
        let range = checked_range(record, bounds)?;
        let is_descending = flag(order, ORDER)?;
        let keys = match (lengths, keys) {
            (None, None) => None,
            (Some(lengths), Some(keys)) => Some(ItemKeys::read(lengths, keys)?),
            _ => return Err("key_lengths and keys: both or none"),
        };
        if keys.is_some() && (is_descending || bounds.iter().any(Option::is_some)) {
            return Err("keys have their own order, and no prefix, from and to beside them");
        }
        let (limits, token) = (limits?, checked_token(token)?);
        if keys.is_some() && limits.lease != 0 {
            return Err("a list of keys is of the present: it has no lease");
        }
        Ok(Self { namespace, record, range, keys, is_descending, limits, token })
    }
}

fn checked_range<'a>(
    record: &[u8],
    [prefix, from, to]: [Option<&'a [u8]>; 3],
) -> Checked<ItemRange<'a>> {
    if record.is_empty() || record.len() > RECORD_BYTES_MAX {
        return Err("a record id has 1 to 1,024 bytes");
    }
    if [prefix, from, to].into_iter().flatten().any(|key| key.len() > ITEM_BYTES_MAX) {
        return Err("prefix, from and to have at most 1,024 bytes");
    }
    match prefix {
        Some(_) if from.is_some() || to.is_some() => Err("a prefix, or from and to: not both"),
        Some(prefix) => Ok(ItemRange::Prefix(prefix)),
        None if from.is_none() && to.is_none() => Ok(ItemRange::Prefix(&[])),
        None => Ok(ItemRange::Between { from, to }),
    }
}

/// Reads a body of `schema/delete_items.fbs`: namespace, record id and range.
pub(super) fn read_range(body: &[u8]) -> Checked<(u32, &[u8], ItemRange<'_>)> {
    told(Reader::read(body, DELETE_ITEMS, |reader, root| {
        let [namespace, record, prefix, from, to] = reader.fields::<5>(root)?;
        let namespace = reader.u32(namespace)?;
        let record = reader.bytes(record)?;
        let bounds = [
            reader.optional_bytes(prefix)?,
            reader.optional_bytes(from)?,
            reader.optional_bytes(to)?,
        ];
        Ok(checked_range(record, bounds).map(|range| (namespace, record, range)))
    }))
}

/// Appends such a body.
pub(super) fn put_range(namespace: u32, record: &[u8], range: ItemRange<'_>, out: &mut Vec<u8>) {
    let mut builder = Builder::with_capacity(128);
    let bounds = bounds_of(range);
    let record = write_bytes(&mut builder, Some(record));
    let [prefix, from, to] = bounds.map(|bytes| write_bytes(&mut builder, bytes));
    let root = write_table(&mut builder, |builder| {
        for (index, bytes) in [(1, record), (2, prefix), (3, from), (4, to)] {
            push(builder, index, bytes);
        }
        builder.push_slot(slot(0), namespace, 0);
    });
    finish(builder, root, DELETE_ITEMS, out);
}

/// Prefix, from and to, as far as they are there.
fn bounds_of(range: ItemRange<'_>) -> [Option<&[u8]>; 3] {
    match range {
        ItemRange::Prefix(prefix) => [Some(prefix).filter(|it| !it.is_empty()), None, None],
        ItemRange::Between { from, to } => [None, from, to],
    }
}

/// Reads the fields of [`PageLimits`].
fn read_limits(
    reader: &mut Reader<'_, '_>,
    [items_max, bytes_max, value_bytes_max, keys_only]: [Option<usize>; 4],
    [lease, passes_damage]: [Option<usize>; 2],
) -> Result<Checked<PageLimits>, InvalidFlatbuffer> {
    let items_max = reader.u32(items_max)?;
    let bytes_max = reader.u32(bytes_max)?;
    let value_bytes_max = reader.u32(value_bytes_max)?;
    let keys_only = flag(reader.u8(keys_only)?, KEYS_ONLY);
    let lease = reader.u64(lease)?;
    let passes_damage = flag(reader.u8(passes_damage)?, PASSES_DAMAGE);
    let limits = || {
        let (keys_only, passes_damage) = (keys_only?, passes_damage?);
        let limits = PageLimits { items_max, bytes_max, value_bytes_max, ..PageLimits::default() };
        Ok(PageLimits { keys_only, lease, passes_damage, ..limits })
    };
    Ok(limits())
}

impl<'a> ScanItems<'a> {
    /// Appends the body.
    pub(super) fn put_body(&self, out: &mut Vec<u8>) {
        let mut builder = Builder::with_capacity(128);
        let token = Some(self.token).filter(|token| !token.is_empty());
        let token = write_bytes(&mut builder, token);
        let root = write_table(&mut builder, |builder| {
            push(builder, 5, token);
            builder.push_slot(slot(0), self.namespace, 0);
            self.limits.write(builder, 1, 7);
            builder.push_slot(slot(6), u8::from(self.is_descending), 0);
        });
        finish(builder, root, SCAN, out);
    }

    /// Reads a body.
    pub(super) fn read(body: &'a [u8]) -> Checked<Self> {
        told(Reader::read(body, SCAN, |reader, root| {
            let [namespace, limits @ .., token, order, lease, passes_damage] =
                reader.fields::<9>(root)?;
            let namespace = reader.u32(namespace)?;
            let limits = read_limits(reader, limits, [lease, passes_damage])?;
            let token = reader.bytes(token)?;
            let order = reader.u8(order)?;
            let check = || {
                let (limits, token) = (limits?, checked_token(token)?);
                let is_descending = flag(order, ORDER)?;
                Ok(Self { namespace, limits, token, is_descending })
            };
            Ok(check())
        }))
    }
}

impl<'a> NativePage<'a> {
    /// Appends the body with these items, whose keys and values have `bytes`, this token, and
    /// whether something was left out that cannot be read.
    pub(super) fn put<'i>(
        items: impl ExactSizeIterator<Item = NativePageItem<'i>>,
        bytes: usize,
        (next, is_damaged): (Option<&[u8]>, bool),
        out: &mut Vec<u8>,
    ) {
        const ITEM_TABLE_BYTES: usize = 64;
        let capacity = bytes + items.len() * ITEM_TABLE_BYTES + next.map_or(0, <[u8]>::len) + 128;
        let mut builder = Builder::with_capacity(capacity);
        let tables: Vec<_> = items.map(|item| item.write(&mut builder)).collect();
        let tables = builder.create_vector(&tables);
        let next = write_bytes(&mut builder, next);
        let root = write_table(&mut builder, |builder| {
            builder.push_slot_always(slot(0), tables);
            push(builder, 1, next);
            builder.push_slot(slot(2), is_damaged, false);
        });
        finish(builder, root, PAGE, out);
    }

    /// Reads a body. Never panics, whatever the bytes are, and takes memory in proportion to them.
    ///
    /// # Errors
    /// If they are no such body.
    pub fn decode(body: &'a [u8]) -> Result<Self, StructureError> {
        Reader::read(body, PAGE, |reader, root| {
            let [items, next, damaged] = reader.fields(root)?;
            let items = reader.tables(items, PAGE_ITEM_BYTES_MIN, NativePageItem::read)?;
            let next = reader.optional_bytes(next)?.filter(|next| !next.is_empty());
            Ok(Self { items, next, is_damaged: reader.u8(damaged)? != 0 })
        })
    }
}

impl<'a> NativePageItem<'a> {
    fn write(&self, builder: &mut Builder) -> WIPOffset<TableFinishedWIPOffset> {
        let value = write_bytes(builder, self.value);
        let item = write_bytes(builder, Some(self.item));
        let record = write_bytes(builder, self.record);
        write_table(builder, |builder| {
            builder.push_slot(slot(2), self.version, 0);
            push(builder, 0, record);
            push(builder, 1, item);
            push(builder, 6, value);
            builder.push_slot(slot(3), self.client_flags, 0);
            builder.push_slot(slot(4), self.expiry, 0);
            builder.push_slot(slot(5), self.value_len, 0);
        })
    }

    fn read(reader: &mut Reader<'_, 'a>, table: usize) -> Result<Self, InvalidFlatbuffer> {
        let [record, item, version, client_flags, expiry, value_len, value] =
            reader.fields(table)?;
        Ok(Self {
            record: reader.optional_bytes(record)?,
            item: reader.bytes(item)?,
            version: reader.u64(version)?,
            client_flags: reader.u32(client_flags)?,
            expiry: reader.u32(expiry)?,
            value_len: reader.u32(value_len)?,
            value: reader.optional_bytes(value)?,
        })
    }
}
