//! FlatBuffers, read without trust: every range goes through the crate's verifier before it is
//! used. Generated readers and `Table::get` are `unsafe` to implement or call.

use std::ops::Range;

use flatbuffers::{
    FlatBufferBuilder, InvalidFlatbuffer, Push, TableFinishedWIPOffset, VOffsetT, Verifier,
    VerifierOptions, WIPOffset,
};

use super::request::BodyError;

const IDENTIFIER_RANGE: Range<usize> = 4..8;

/// How much more a buffer may hold, once shared parts are counted for each reference to them, than
/// it has bytes.
const EXPANSION_MAX: usize = 16;

/// Why bytes are not the structure that they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StructureError {
    /// They are another one, or none.
    Identifier,
    /// They are damaged, or were made to look as if.
    Malformed(InvalidFlatbuffer),
}

impl std::fmt::Display for StructureError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Identifier => formatter.write_str("the body is of another kind"),
            Self::Malformed(error) => write!(formatter, "the body is malformed: {error}"),
        }
    }
}

impl std::error::Error for StructureError {}

impl From<InvalidFlatbuffer> for StructureError {
    fn from(error: InvalidFlatbuffer) -> Self {
        Self::Malformed(error)
    }
}

/// What was read of a body, or why it is none, in words that need no memory.
pub(super) fn told<T>(read: Result<Result<T, BodyError>, StructureError>) -> Result<T, BodyError> {
    match read {
        Ok(checked) => checked,
        Err(StructureError::Identifier) => Err("the body is of another kind than its opcode"),
        Err(StructureError::Malformed(_)) => Err("the body is no FlatBuffer of its schema"),
    }
}

/// The vtable slot of the field with this index in its table.
pub(super) fn slot(index: usize) -> VOffsetT {
    VOffsetT::try_from(4 + 2 * index).expect("tables have few fields")
}

pub(super) fn write_table<'b>(
    builder: &mut FlatBufferBuilder<'b>,
    fill: impl FnOnce(&mut FlatBufferBuilder<'b>),
) -> WIPOffset<TableFinishedWIPOffset> {
    let start = builder.start_table();
    fill(builder);
    builder.end_table(start)
}

/// Writes a vector of numbers.
pub(super) fn write_scalars<'b, P: Push<Output: 'b>>(
    builder: &mut FlatBufferBuilder<'b>,
    items: &[P],
) -> WIPOffset<flatbuffers::UnionWIPOffset> {
    builder.create_vector(items).as_union_value()
}

type Decoded<T> = Result<T, InvalidFlatbuffer>;

/// Reads positions of one buffer.
pub(super) struct Reader<'o, 'a> {
    bytes: &'a [u8],
    verifier: Verifier<'o, 'a>,
}

impl<'a> Reader<'_, 'a> {
    /// Begins to read with `read`, which gets the reader and the position of the root table.
    ///
    /// # Errors
    /// If the bytes have another identifier, or `read` meets what is none of their table's.
    pub(super) fn read<T>(
        bytes: &'a [u8],
        identifier: &str,
        read: impl FnOnce(&mut Reader<'_, 'a>, usize) -> Decoded<T>,
    ) -> Result<T, StructureError> {
        if bytes.get(IDENTIFIER_RANGE) != Some(identifier.as_bytes()) {
            return Err(StructureError::Identifier);
        }
        let options = VerifierOptions {
            max_tables: bytes.len(),
            max_apparent_size: bytes.len().saturating_mul(EXPANSION_MAX),
            ..VerifierOptions::default()
        };
        let mut reader = Reader { bytes, verifier: Verifier::new(&options, bytes) };
        let root = reader.follow(0)?;
        Ok(read(&mut reader, root)?)
    }

    /// The position that the offset at `position` refers to.
    fn follow(&mut self, position: usize) -> Decoded<usize> {
        let offset = self.verifier.get_uoffset(position)?;
        Ok(position.saturating_add(offset as usize))
    }

    /// The positions of the first `N` fields of the table at `table`; `None` for absent ones.
    pub(super) fn fields<const N: usize>(&mut self, table: usize) -> Decoded<[Option<usize>; N]> {
        let mut positions = [None; N];
        let mut visit = self.verifier.visit_table(table)?;
        for (index, position) in positions.iter_mut().enumerate() {
            *position = visit.deref(slot(index))?;
        }
        visit.finish();
        Ok(positions)
    }

    /// The bytes of a number; zeros if it is absent.
    fn scalar<const N: usize>(&mut self, position: Option<usize>) -> Decoded<[u8; N]> {
        let mut value = [0; N];
        if let Some(position) = position {
            self.verifier.range_in_buffer(position, N)?;
            value.copy_from_slice(&self.bytes[position..position + N]);
        }
        Ok(value)
    }

    pub(super) fn u8(&mut self, position: Option<usize>) -> Decoded<u8> {
        self.scalar(position).map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self, position: Option<usize>) -> Decoded<u16> {
        self.scalar(position).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, position: Option<usize>) -> Decoded<u32> {
        self.scalar(position).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, position: Option<usize>) -> Decoded<u64> {
        self.scalar(position).map(u64::from_le_bytes)
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

    /// A vector of bytes, or a string's.
    pub(super) fn bytes(&mut self, field: Option<usize>) -> Decoded<&'a [u8]> {
        let range = self.vector(field, 1)?;
        Ok(&self.bytes[range])
    }

    /// The same; `None` if the field is absent.
    pub(super) fn optional_bytes(&mut self, field: Option<usize>) -> Decoded<Option<&'a [u8]>> {
        field.map(|_| self.bytes(field)).transpose()
    }

    /// The position of a table that a field refers to; `None` if the field is absent.
    pub(super) fn table(&mut self, field: Option<usize>) -> Decoded<Option<usize>> {
        field.map(|field| self.follow(field)).transpose()
    }

    /// A vector of tables, each of which takes at least so many bytes of the buffer. `read` gets
    /// the reader and a table's position.
    pub(super) fn tables<T>(
        &mut self,
        field: Option<usize>,
        bytes_min: usize,
        mut read: impl FnMut(&mut Self, usize) -> Decoded<T>,
    ) -> Decoded<Vec<T>> {
        let range = self.vector(field, size_of::<u32>())?;
        let count = range.len() / size_of::<u32>();
        // What refers to few tables again and again would take memory out of proportion.
        if count.saturating_mul(bytes_min) > self.bytes.len() {
            return Err(InvalidFlatbuffer::TooManyTables);
        }
        let mut tables = Vec::with_capacity(count);
        for element in range.step_by(size_of::<u32>()) {
            let table = self.follow(element)?;
            tables.push(read(self, table)?);
        }
        Ok(tables)
    }

    /// The bytes of a vector of 16-bit numbers; `None` if the field is absent.
    pub(super) fn u16_bytes(&mut self, field: Option<usize>) -> Decoded<Option<&'a [u8]>> {
        let Some(field) = field else { return Ok(None) };
        let range = self.vector(Some(field), size_of::<u16>())?;
        Ok(Some(&self.bytes[range]))
    }

    /// A vector of 16-bit numbers.
    pub(super) fn u16s(&mut self, field: Option<usize>) -> Decoded<Vec<u16>> {
        let range = self.vector(field, size_of::<u16>())?;
        let (elements, _) = self.bytes[range].as_chunks();
        Ok(elements.iter().map(|&element| u16::from_le_bytes(element)).collect())
    }

    /// The same of numbers of 32 bits.
    pub(super) fn u32s(&mut self, field: Option<usize>) -> Decoded<Vec<u32>> {
        let range = self.vector(field, size_of::<u32>())?;
        let (elements, _) = self.bytes[range].as_chunks();
        Ok(elements.iter().map(|&element| u32::from_le_bytes(element)).collect())
    }
}
