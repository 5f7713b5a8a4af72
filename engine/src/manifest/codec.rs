//! Edits as flatbuffers; `edit.fbs` is the schema.
//!
//! The writer uses the crate's builder. The reader goes through the crate's verifier, whose safe
//! interface finds a table's fields and bounds every range, and copies the fields out; generated
//! readers and `Table::get` are `unsafe` to implement or call. A field's place in the arrays below
//! is its place in the schema.

use std::ops::Range;

use flatbuffers::{
    FlatBufferBuilder, InvalidFlatbuffer, Push, TableFinishedWIPOffset, UnionWIPOffset, VOffsetT,
    Verifier, VerifierOptions, WIPOffset,
};

use super::edit::{
    Edit, LogPosition, NamespaceGeneration, SegmentExpiry, SegmentPointers, SegmentSeal,
};
use crate::index::table::TableMeta;
use crate::range_tombstones::RangeTombstone;

/// The schema's `file_identifier`, which follows the root offset.
const IDENTIFIER: &str = "LRME";
const IDENTIFIER_RANGE: Range<usize> = 4..8;

/// How much more a buffer may hold, once shared parts are counted for each reference to them, than
/// it has bytes. Shared vtables make up to five of it; a small buffer that decodes to a huge edit
/// makes more.
const EXPANSION_MAX: usize = 16;

/// Why bytes are not an edit.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecodeError {
    #[error("the payload is no edit")]
    Identifier,
    #[error("the edit is malformed: {0}")]
    Malformed(#[from] InvalidFlatbuffer),
}

/// The vtable slot of the field with this index in its table.
fn slot(index: usize) -> VOffsetT {
    VOffsetT::try_from(4 + 2 * index).expect("tables have few fields")
}

/// The encoded edit.
pub(super) fn encode(edit: &Edit) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::with_capacity(1024);
    let builder = &mut builder;
    let tables_added = write_tables(builder, &edit.tables_added, write_table_meta);
    let tables_removed = write_scalars(builder, &edit.tables_removed);
    let tables_moved = write_tables(builder, &edit.tables_moved, |builder, &(id, level)| {
        write_table(builder, |builder| {
            builder.push_slot(slot(0), id, 0);
            builder.push_slot(slot(1), level, 0);
        })
    });
    let segments_opened = write_tables(builder, &edit.segments_opened, |builder, &(id, bytes)| {
        write_table(builder, |builder| {
            builder.push_slot(slot(0), id, 0);
            builder.push_slot(slot(1), bytes, 0);
        })
    });
    let segments_sealed = write_tables(builder, &edit.segments_sealed, write_seal);
    let segments_freed = write_scalars(builder, &edit.segments_freed);
    let live_bytes = write_tables(builder, &edit.live_bytes, |builder, &(segment, delta)| {
        write_table(builder, |builder| {
            builder.push_slot(slot(1), delta, 0);
            builder.push_slot(slot(0), segment, 0);
        })
    });
    let replay_from =
        edit.replay_from.map(|position| WIPOffset::new(write_position(builder, &position).value()));
    let namespace_generations = write_tables(builder, &edit.namespace_generations, write_flush);

    let segments_collected =
        write_tables(builder, &edit.segments_collected, |builder, &(segment, generation)| {
            write_table(builder, |builder| {
                builder.push_slot(slot(0), segment, 0);
                builder.push_slot(slot(1), u32::from(generation), 0);
            })
        });
    let segment_pointers = write_tables(builder, &edit.segment_pointers, write_pointers);
    let segments_expired = write_tables(builder, &edit.segments_expired, write_expiry);
    let ranges_deleted = write_tables(builder, &edit.ranges_deleted, write_range);
    let ranges_forgotten = write_tables(builder, &edit.ranges_forgotten, write_range);

    let root = write_table(builder, |builder| {
        push_offset(builder, 0, tables_added);
        push_offset(builder, 1, tables_removed);
        push_offset(builder, 2, tables_moved);
        push_offset(builder, 3, segments_opened);
        push_offset(builder, 4, segments_sealed);
        push_offset(builder, 5, segments_freed);
        push_offset(builder, 6, live_bytes);
        push_offset(builder, 7, replay_from);
        push_optional(builder, 8, edit.version_ceiling);
        push_optional(builder, 9, edit.table_id_next);
        push_optional(builder, 10, edit.segment_id_next);
        push_offset(builder, 11, namespace_generations);
        push_offset(builder, 12, segments_collected);
        push_offset(builder, 13, segment_pointers);
        push_offset(builder, 15, segments_expired);
        push_offset(builder, 16, ranges_deleted);
        push_offset(builder, 17, ranges_forgotten);
    });
    builder.finish(root, Some(IDENTIFIER));
    builder.finished_data().to_vec()
}

type Builder<'b> = FlatBufferBuilder<'b>;
type WrittenTable = WIPOffset<TableFinishedWIPOffset>;
/// Where something of any type was written.
type Written = WIPOffset<UnionWIPOffset>;

fn write_table<'b>(builder: &mut Builder<'b>, fill: impl FnOnce(&mut Builder<'b>)) -> WrittenTable {
    let start = builder.start_table();
    fill(builder);
    builder.end_table(start)
}

/// Writes a vector of tables; nothing if there are none.
fn write_tables<'b, T>(
    builder: &mut Builder<'b>,
    items: &[T],
    write: impl Fn(&mut Builder<'b>, &T) -> WrittenTable,
) -> Option<Written> {
    let written: Vec<WrittenTable> = items.iter().map(|item| write(builder, item)).collect();
    write_scalars(builder, &written)
}

/// Writes a vector of numbers or of offsets; nothing if there are none.
fn write_scalars<'b, P: Push<Output: 'b>>(
    builder: &mut Builder<'b>,
    items: &[P],
) -> Option<Written> {
    (!items.is_empty()).then(|| builder.create_vector(items).as_union_value())
}

fn push_offset(builder: &mut Builder<'_>, index: usize, written: Option<Written>) {
    if let Some(offset) = written {
        builder.push_slot_always(slot(index), offset);
    }
}

fn push_optional<P: Push>(builder: &mut Builder<'_>, index: usize, value: Option<P>) {
    if let Some(value) = value {
        builder.push_slot_always(slot(index), value);
    }
}

fn write_table_meta(builder: &mut Builder<'_>, table: &TableMeta) -> WrittenTable {
    let smallest = write_scalars(builder, &table.smallest);
    let largest = write_scalars(builder, &table.largest);
    let bad_blocks = write_scalars(builder, &table.bad_blocks);
    write_table(builder, |builder| {
        builder.push_slot(slot(0), table.id, 0);
        builder.push_slot(slot(2), table.file_bytes, 0);
        builder.push_slot(slot(3), table.entries, 0);
        builder.push_slot(slot(4), table.tombstones, 0);
        builder.push_slot(slot(8), table.version_max, 0);
        builder.push_slot(slot(9), table.separate_bytes, 0);
        builder.push_slot(slot(10), table.expiring_bytes, 0);
        builder.push_slot(slot(14), table.deleted_until, 0);
        push_offset(builder, 5, smallest);
        push_offset(builder, 6, largest);
        push_offset(builder, 12, bad_blocks);
        builder.push_slot(slot(7), table.footer_checksum, 0);
        builder.push_slot(slot(11), table.expiry_max, 0);
        builder.push_slot(slot(13), table.expiry_last, 0);
        builder.push_slot(slot(1), table.level, 0);
    })
}

fn write_seal(builder: &mut Builder<'_>, seal: &SegmentSeal) -> WrittenTable {
    write_table(builder, |builder| {
        builder.push_slot(slot(2), seal.sequence_last, 0);
        builder.push_slot(slot(0), seal.segment, 0);
        builder.push_slot(slot(1), seal.end, 0);
    })
}

fn write_pointers(builder: &mut Builder<'_>, pointers: &SegmentPointers) -> WrittenTable {
    write_table(builder, |builder| {
        builder.push_slot(slot(0), pointers.segment, 0);
        builder.push_slot(slot(1), pointers.expiry, 0);
        builder.push_slot(slot(2), pointers.end, 0);
    })
}

fn write_expiry(builder: &mut Builder<'_>, expiry: &SegmentExpiry) -> WrittenTable {
    write_table(builder, |builder| {
        builder.push_slot(slot(2), expiry.live_bytes, 0);
        builder.push_slot(slot(0), expiry.segment, 0);
        builder.push_slot(slot(1), expiry.until, 0);
    })
}

fn write_range(builder: &mut Builder<'_>, range: &RangeTombstone) -> WrittenTable {
    let start = write_scalars(builder, &range.start);
    let end = write_scalars(builder, &range.end);
    write_table(builder, |builder| {
        builder.push_slot(slot(2), range.sequence, 0);
        push_offset(builder, 0, start);
        push_offset(builder, 1, end);
    })
}

fn write_position(builder: &mut Builder<'_>, position: &LogPosition) -> WrittenTable {
    write_table(builder, |builder| {
        builder.push_slot(slot(2), position.sequence, 0);
        builder.push_slot(slot(0), position.segment, 0);
        builder.push_slot(slot(1), position.offset, 0);
    })
}

fn write_flush(builder: &mut Builder<'_>, flush: &NamespaceGeneration) -> WrittenTable {
    write_table(builder, |builder| {
        builder.push_slot(slot(1), flush.generation, 0);
        builder.push_slot(slot(0), flush.namespace, 0);
    })
}

/// The edit that `bytes` encode. Never panics, whatever they are, and takes memory in proportion
/// to their length.
pub(super) fn decode(bytes: &[u8]) -> Result<Edit, DecodeError> {
    if bytes.get(IDENTIFIER_RANGE) != Some(IDENTIFIER.as_bytes()) {
        return Err(DecodeError::Identifier);
    }
    let options = VerifierOptions {
        max_tables: bytes.len(),
        max_apparent_size: bytes.len().saturating_mul(EXPANSION_MAX),
        ..VerifierOptions::default()
    };
    let mut reader = Reader { bytes, verifier: Verifier::new(&options, bytes) };
    let root = reader.follow(0)?;
    Ok(reader.edit(root)?)
}

type Decoded<T> = Result<T, InvalidFlatbuffer>;

/// Reads positions of one buffer. Every range goes through the verifier before it is sliced.
struct Reader<'a> {
    bytes: &'a [u8],
    verifier: Verifier<'a, 'a>,
}

impl Reader<'_> {
    /// The position that the offset at `position` refers to.
    fn follow(&mut self, position: usize) -> Decoded<usize> {
        let offset = self.verifier.get_uoffset(position)?;
        Ok(position.saturating_add(offset as usize))
    }

    /// The positions of the first `N` fields of the table at `table`; `None` for absent ones.
    fn fields<const N: usize>(&mut self, table: usize) -> Decoded<[Option<usize>; N]> {
        let mut positions = [None; N];
        let mut visit = self.verifier.visit_table(table)?;
        for (index, position) in positions.iter_mut().enumerate() {
            *position = visit.deref(slot(index))?;
        }
        visit.finish();
        Ok(positions)
    }

    /// The bytes of a number; zeros, the default of every field, if it is absent.
    fn scalar<const N: usize>(&mut self, position: Option<usize>) -> Decoded<[u8; N]> {
        let mut value = [0; N];
        if let Some(position) = position {
            self.verifier.range_in_buffer(position, N)?;
            value.copy_from_slice(&self.bytes[position..position + N]);
        }
        Ok(value)
    }

    fn u8(&mut self, position: Option<usize>) -> Decoded<u8> {
        self.scalar(position).map(u8::from_le_bytes)
    }

    fn u32(&mut self, position: Option<usize>) -> Decoded<u32> {
        self.scalar(position).map(u32::from_le_bytes)
    }

    fn u64(&mut self, position: Option<usize>) -> Decoded<u64> {
        self.scalar(position).map(u64::from_le_bytes)
    }

    fn i64(&mut self, position: Option<usize>) -> Decoded<i64> {
        self.scalar(position).map(i64::from_le_bytes)
    }

    /// The range of the elements of a vector field; empty if the field is absent.
    fn vector(&mut self, field: Option<usize>, element_bytes: usize) -> Decoded<Range<usize>> {
        let Some(field) = field else { return Ok(0..0) };
        let vector = self.follow(field)?;
        let count = self.verifier.get_uoffset(vector)? as usize;
        let start = vector.saturating_add(size_of::<u32>());
        let len = count.saturating_mul(element_bytes);
        self.verifier.range_in_buffer(start, len)?;
        Ok(start..start + len)
    }

    fn byte_vector(&mut self, field: Option<usize>) -> Decoded<Vec<u8>> {
        let range = self.vector(field, 1)?;
        Ok(self.bytes[range].to_vec())
    }

    fn scalars<const N: usize, T>(
        &mut self,
        field: Option<usize>,
        read: fn([u8; N]) -> T,
    ) -> Decoded<Vec<T>> {
        let range = self.vector(field, N)?;
        let (elements, _) = self.bytes[range].as_chunks::<N>();
        Ok(elements.iter().map(|&element| read(element)).collect())
    }

    fn tables<T>(
        &mut self,
        field: Option<usize>,
        read: impl Fn(&mut Self, usize) -> Decoded<T>,
    ) -> Decoded<Vec<T>> {
        let mut items = Vec::new();
        for element in self.vector(field, size_of::<u32>())?.step_by(size_of::<u32>()) {
            let table = self.follow(element)?;
            items.push(read(self, table)?);
        }
        Ok(items)
    }

    fn edit(&mut self, root: usize) -> Decoded<Edit> {
        let [
            tables_added,
            tables_removed,
            tables_moved,
            segments_opened,
            segments_sealed,
            segments_freed,
            live_bytes,
            replay_from,
            version_ceiling,
            table_id_next,
            segment_id_next,
            namespace_generations,
            segments_collected,
            segment_pointers,
            _expired_until,
            segments_expired,
            ranges_deleted,
            ranges_forgotten,
        ] = self.fields(root)?;
        Ok(Edit {
            tables_added: self.tables(tables_added, Self::table_meta)?,
            tables_removed: self.scalars(tables_removed, u64::from_le_bytes)?,
            tables_moved: self.tables(tables_moved, |reader, table| {
                let [id, level] = reader.fields(table)?;
                Ok((reader.u64(id)?, reader.u8(level)?))
            })?,
            segments_opened: self.tables(segments_opened, |reader, table| {
                let [id, file_bytes] = reader.fields(table)?;
                Ok((reader.u32(id)?, reader.u32(file_bytes)?))
            })?,
            segments_collected: self.tables(segments_collected, |reader, table| {
                let [segment, generation] = reader.fields(table)?;
                // A generation only ages a segment: the last one stands for all later ones.
                let generation = u8::try_from(reader.u32(generation)?).unwrap_or(u8::MAX);
                Ok((reader.u32(segment)?, generation))
            })?,
            segments_sealed: self.tables(segments_sealed, Self::seal)?,
            segments_freed: self.scalars(segments_freed, u32::from_le_bytes)?,
            live_bytes: self.tables(live_bytes, |reader, table| {
                let [segment, delta] = reader.fields(table)?;
                Ok((reader.u32(segment)?, reader.i64(delta)?))
            })?,
            segment_pointers: self.tables(segment_pointers, Self::pointers)?,
            segments_expired: self.tables(segments_expired, Self::expiry)?,
            replay_from: replay_from.map(|field| self.position(field)).transpose()?,
            version_ceiling: version_ceiling.map(|at| self.u64(Some(at))).transpose()?,
            table_id_next: table_id_next.map(|at| self.u64(Some(at))).transpose()?,
            segment_id_next: segment_id_next.map(|at| self.u32(Some(at))).transpose()?,
            namespace_generations: self.tables(namespace_generations, |reader, table| {
                let [namespace, generation] = reader.fields(table)?;
                let namespace = reader.u32(namespace)?;
                Ok(NamespaceGeneration { namespace, generation: reader.u64(generation)? })
            })?,
            ranges_deleted: self.tables(ranges_deleted, Self::range)?,
            ranges_forgotten: self.tables(ranges_forgotten, Self::range)?,
        })
    }

    fn table_meta(&mut self, table: usize) -> Decoded<TableMeta> {
        let [
            id,
            level,
            file_bytes,
            entries,
            tombstones,
            smallest,
            largest,
            footer_checksum,
            version_max,
            separate_bytes,
            expiring_bytes,
            expiry_max,
            bad_blocks,
            expiry_last,
            deleted_until,
        ] = self.fields(table)?;
        Ok(TableMeta {
            id: self.u64(id)?,
            level: self.u8(level)?,
            file_bytes: self.u64(file_bytes)?,
            entries: self.u64(entries)?,
            tombstones: self.u64(tombstones)?,
            smallest: self.byte_vector(smallest)?,
            largest: self.byte_vector(largest)?,
            footer_checksum: self.u32(footer_checksum)?,
            version_max: self.u64(version_max)?,
            separate_bytes: self.u64(separate_bytes)?,
            expiring_bytes: self.u64(expiring_bytes)?,
            expiry_max: self.u32(expiry_max)?,
            expiry_last: self.u32(expiry_last)?,
            bad_blocks: self.scalars(bad_blocks, u32::from_le_bytes)?,
            deleted_until: self.u64(deleted_until)?,
        })
    }

    fn seal(&mut self, table: usize) -> Decoded<SegmentSeal> {
        let [segment, end, sequence_last] = self.fields(table)?;
        Ok(SegmentSeal {
            segment: self.u32(segment)?,
            end: self.u32(end)?,
            sequence_last: self.u64(sequence_last)?,
        })
    }

    fn pointers(&mut self, table: usize) -> Decoded<SegmentPointers> {
        let [segment, expiry, end] = self.fields(table)?;
        Ok(SegmentPointers {
            segment: self.u32(segment)?,
            expiry: self.u32(expiry)?,
            end: self.u32(end)?,
        })
    }

    fn expiry(&mut self, table: usize) -> Decoded<SegmentExpiry> {
        let [segment, until, live_bytes] = self.fields(table)?;
        Ok(SegmentExpiry {
            segment: self.u32(segment)?,
            until: self.u32(until)?,
            live_bytes: self.u64(live_bytes)?,
        })
    }

    fn range(&mut self, table: usize) -> Decoded<RangeTombstone> {
        let [start, end, sequence] = self.fields(table)?;
        Ok(RangeTombstone {
            start: self.byte_vector(start)?,
            end: self.byte_vector(end)?,
            sequence: self.u64(sequence)?,
        })
    }

    fn position(&mut self, field: usize) -> Decoded<LogPosition> {
        let table = self.follow(field)?;
        let [segment, offset, sequence] = self.fields(table)?;
        Ok(LogPosition {
            segment: self.u32(segment)?,
            offset: self.u32(offset)?,
            sequence: self.u64(sequence)?,
        })
    }
}
