//! Values as they lie in the log where that is shorter: cut into chunks, each of which is
//! compressed with LZ4 by itself. Pure. FORMAT.md draws the bytes.
//!
//! A chunk takes so little time that one of them fits into a turn: whoever has a long value goes
//! from chunk to chunk and lets others have the core in between. It also bounds what has to be in
//! memory besides the value.
//!
//! Two checksums belong to a compressed value: that of its bytes in the log, which whatever reads
//! a record looks at, and that of the value as it came, which is looked at here.

use lz4_flex::block::{self, CompressTable};

use crate::canary::{self, Defect};

/// A value is cut into chunks of so many bytes, the last of which may be shorter.
pub const CHUNK_BYTES: usize = 32 << 10;

/// A value has at most so many times the bytes that it has when it is compressed: LZ4 copies up to
/// 255 bytes for each that it takes.
pub const EXPANSION_MAX: usize = 256;

/// Of a long value so many bytes are tried before the whole is.
const SAMPLE_BYTES: usize = 4 << 10;

/// What is in front of a chunk: how many bytes it takes.
const LENGTH_BYTES: usize = 2;

const _: () = assert!(CHUNK_BYTES <= u16::MAX as usize);

/// What a compressed value was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginalValue {
    /// Its length in bytes.
    pub len: u32,
    /// Its CRC-32C.
    pub checksum: u32,
}

impl OriginalValue {
    /// Bytes of a record that are taken by this.
    pub const ENCODED_BYTES: usize = 8;
}

/// A compressed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressedValue {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their CRC-32C.
    pub checksum: u32,
    /// What it was before.
    pub original: OriginalValue,
}

impl CompressedValue {
    /// Bytes of a record besides head and key.
    pub fn record_bytes(&self) -> usize {
        OriginalValue::ENCODED_BYTES + self.bytes.len()
    }
}

/// Whether so many bytes instead of `len` save an eighth.
fn saves_enough(bytes: usize, len: usize) -> bool {
    bytes <= len - len / 8
}

/// Memory that compressing needs besides the value, to be used again and again.
#[derive(Default)]
pub struct ValueCompressor {
    table: CompressTable,
    scratch: Vec<u8>,
}

impl ValueCompressor {
    /// The shorter form of a chunk: compressed, or as it is.
    fn pack<'a>(&'a mut self, chunk: &'a [u8]) -> &'a [u8] {
        let needed = block::get_maximum_output_size(chunk.len());
        if self.scratch.len() < needed {
            self.scratch.resize(needed, 0);
        }
        match block::compress_into_with_table(chunk, &mut self.scratch, &mut self.table) {
            Ok(len) if len < chunk.len() => &self.scratch[..len],
            _ => chunk,
        }
    }

    /// Compresses a value; `None` if that does not save an eighth.
    pub fn compress(&mut self, value: &[u8]) -> Option<CompressedValue> {
        let mut compressing = Compressing::begin(value, self)?;
        while compressing.step(self) {}
        compressing.finish()
    }
}

/// A value that is being compressed, chunk by chunk.
pub struct Compressing<'a> {
    value: &'a [u8],
    done: usize,
    /// What is worth keeping has no more bytes than this.
    bytes_max: usize,
    bytes: Vec<u8>,
    checksum: u32,
    original_checksum: u32,
}

impl<'a> Compressing<'a> {
    /// Begins with `value`; `None` if a sample of it says that it would be in vain: a client that
    /// compresses its values itself is found out in about a microsecond.
    pub fn begin(value: &'a [u8], compressor: &mut ValueCompressor) -> Option<Self> {
        let sample = &value[..value.len().min(SAMPLE_BYTES)];
        let is_long = value.len() > 2 * SAMPLE_BYTES;
        if is_long && !saves_enough(compressor.pack(sample).len(), sample.len()) {
            return None;
        }
        let worth = value.len() - value.len() / 8;
        let bytes_max = worth.checked_sub(OriginalValue::ENCODED_BYTES)?;
        // A long one never has to move while it grows.
        let is_one_chunk = value.len() <= CHUNK_BYTES;
        let reserved = if is_one_chunk { 0 } else { bytes_max + LENGTH_BYTES + CHUNK_BYTES };
        Some(Self {
            value,
            done: 0,
            bytes_max,
            bytes: Vec::with_capacity(reserved),
            checksum: 0,
            original_checksum: 0,
        })
    }

    /// Compresses the next chunk. False if nothing is left to do: it was the last, or so much has
    /// been found not to become shorter that the whole will not save enough.
    pub fn step(&mut self, compressor: &mut ValueCompressor) -> bool {
        let rest = &self.value[self.done..];
        let chunk = &rest[..rest.len().min(CHUNK_BYTES)];
        let start = self.bytes.len();
        let packed = compressor.pack(chunk);
        let length = u16::try_from(packed.len()).expect("a chunk is under 64 KiB");
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(packed);
        self.checksum = crc32c::crc32c_append(self.checksum, &self.bytes[start..]);
        self.original_checksum = crc32c::crc32c_append(self.original_checksum, chunk);
        self.done += chunk.len();
        self.done < self.value.len() && self.bytes.len() <= self.bytes_max
    }

    /// The compressed value, if that saves an eighth.
    pub fn finish(mut self) -> Option<CompressedValue> {
        if self.done < self.value.len() || self.bytes.len() > self.bytes_max {
            return None;
        }
        if canary::has(Defect::SpoilCompressed)
            && let Some(last) = self.bytes.last_mut()
        {
            *last ^= 1;
            self.checksum = crc32c::crc32c(&self.bytes);
        }
        let len = u32::try_from(self.value.len()).expect("a value is under 4 GiB");
        let original = OriginalValue { len, checksum: self.original_checksum };
        Some(CompressedValue { bytes: self.bytes, checksum: self.checksum, original })
    }
}

/// Bytes are not what a value was compressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("decompressed, the value does not match its checksum")]
pub struct SpoiledValue;

/// A value that is being decompressed, chunk by chunk.
#[derive(Debug)]
pub struct Decompressing<'a> {
    rest: &'a [u8],
    /// Bytes of the value that are still to come.
    left: usize,
    checksum: u32,
    original: OriginalValue,
}

impl<'a> Decompressing<'a> {
    /// Begins with the bytes of a compressed value.
    ///
    /// # Errors
    ///
    /// [`SpoiledValue`] if so few bytes cannot be a value of that length: nobody makes room for it
    /// then.
    pub fn begin(bytes: &'a [u8], original: OriginalValue) -> Result<Self, SpoiledValue> {
        let left = original.len as usize;
        if left > bytes.len().saturating_mul(EXPANSION_MAX) {
            return Err(SpoiledValue);
        }
        Ok(Self { rest: bytes, left, checksum: 0, original })
    }

    /// Appends the next chunk to `out`. False if there is none left, and all was as it had been.
    ///
    /// # Errors
    ///
    /// [`SpoiledValue`]: what came before is not to be used either.
    pub fn step(&mut self, out: &mut Vec<u8>) -> Result<bool, SpoiledValue> {
        if self.left == 0 {
            let is_sound = self.rest.is_empty() && self.checksum == self.original.checksum;
            let is_believed = is_sound || canary::has(Defect::IgnoreCompressedChecksums);
            return if is_believed { Ok(false) } else { Err(SpoiledValue) };
        }
        let (length, rest) = self.rest.split_first_chunk::<LENGTH_BYTES>().ok_or(SpoiledValue)?;
        let length = usize::from(u16::from_le_bytes(*length));
        let (packed, rest) = rest.split_at_checked(length).ok_or(SpoiledValue)?;
        let len = self.left.min(CHUNK_BYTES);
        let start = out.len();
        if length == len {
            out.extend_from_slice(packed);
        } else {
            // All of it is zeros first: what is left of it can never be anybody's bytes.
            out.resize(start + len, 0);
            let decompressed = block::decompress_into(packed, &mut out[start..]);
            if !matches!(decompressed, Ok(found) if found == len) {
                return Err(SpoiledValue);
            }
        }
        self.checksum = crc32c::crc32c_append(self.checksum, &out[start..]);
        self.rest = rest;
        self.left -= len;
        Ok(true)
    }
}

/// Whether `bytes` are what the value was compressed to, with no more memory than a chunk's.
pub fn is_sound(bytes: &[u8], original: OriginalValue) -> bool {
    let mut chunk = Vec::new();
    let Ok(mut decompressing) = Decompressing::begin(bytes, original) else { return false };
    loop {
        chunk.clear();
        match decompressing.step(&mut chunk) {
            Ok(true) => {}
            Ok(false) => return true,
            Err(SpoiledValue) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decompress(compressed: &CompressedValue) -> Result<Vec<u8>, SpoiledValue> {
        let mut value = Vec::new();
        let mut decompressing = Decompressing::begin(&compressed.bytes, compressed.original)?;
        while decompressing.step(&mut value)? {}
        Ok(value)
    }

    /// A value that compresses well, of words and noise.
    fn text(len: usize) -> Vec<u8> {
        let words = (0u32..).flat_map(|number| {
            let noise = number.wrapping_mul(0x9E37_79B9) >> 24;
            format!("{{\"name\": \"item\", \"noise\": {noise}}}, ").into_bytes()
        });
        words.take(len).collect()
    }

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        larder_runtime::random::Random::new(seed).bytes(len)
    }

    #[test]
    fn what_saves_an_eighth_is_kept_and_nothing_else() {
        let mut compressor = ValueCompressor::default();
        for len in [200, 1024, 4096, 8192, 8193, CHUNK_BYTES, CHUNK_BYTES + 1, 1 << 20] {
            let value = text(len);
            let compressed = compressor.compress(&value).expect("it compresses");
            assert!(compressed.bytes.len() + 8 <= len - len / 8, "{len}");
            assert_eq!(compressed.checksum, crc32c::crc32c(&compressed.bytes));
            let original = OriginalValue { len: len as u32, checksum: crc32c::crc32c(&value) };
            assert_eq!(compressed.original, original);
            assert_eq!(decompress(&compressed), Ok(value));
            assert_eq!(compressor.compress(&noise(len, 1)), None, "{len}");
        }
        for len in 0..9 {
            assert_eq!(compressor.compress(&vec![0; len]), None, "{len} bytes");
        }
    }

    #[test]
    fn how_much_a_value_saves_decides() {
        let mut compressor = ValueCompressor::default();
        let of = |zeros: usize| [vec![0; zeros], noise(8000 - zeros, 3)].concat();
        assert_eq!(compressor.compress(&of(900)), None);
        assert!(compressor.compress(&of(1200)).is_some());
        // Noise where the sample is taken, and a value that turns into noise behind it.
        let late = [noise(8192, 5), vec![0; 100_000]].concat();
        assert_eq!(compressor.compress(&late), None);
        let early = [vec![0; 8192], noise(100_000, 6)].concat();
        assert_eq!(compressor.compress(&early), None);
        // A chunk of noise among others is kept as it is.
        let mixed = [text(CHUNK_BYTES), noise(CHUNK_BYTES, 7), text(100)].concat();
        let compressed = compressor.compress(&mixed).expect("the rest saves enough");
        assert_eq!(decompress(&compressed), Ok(mixed));
    }

    #[test]
    fn every_flip_is_seen() {
        let mut compressor = ValueCompressor::default();
        for value in [text(1500), vec![7; 300], text(CHUNK_BYTES + 200)] {
            let sound = compressor.compress(&value).expect("it compresses");
            assert!(is_sound(&sound.bytes, sound.original));
            for at in 0..sound.bytes.len() {
                let mut bytes = sound.bytes.clone();
                bytes[at] ^= 1 << (at % 8);
                // Bytes behind the last match may mean the same when they differ; no value may.
                let found = decompress(&CompressedValue { bytes, ..sound.clone() });
                assert!(found == Err(SpoiledValue) || found.as_ref() == Ok(&value), "byte {at}");
            }
            let OriginalValue { len, checksum } = sound.original;
            for original in [
                OriginalValue { len: len - 1, checksum },
                OriginalValue { len: len + 1, checksum },
                OriginalValue { len: u32::MAX, checksum },
                OriginalValue { len: 0, checksum },
                OriginalValue { len, checksum: !checksum },
            ] {
                assert!(!is_sound(&sound.bytes, original), "{original:?}");
            }
        }
    }

    #[test]
    fn so_few_bytes_as_nothing_else_becomes_are_still_enough_for_their_value() {
        let mut compressor = ValueCompressor::default();
        for len in [100, 1000, CHUNK_BYTES, 10 * CHUNK_BYTES] {
            let zeros = vec![0; len];
            let compressed = compressor.compress(&zeros).expect("it compresses");
            assert_eq!(decompress(&compressed), Ok(zeros));
        }
    }

    proptest! {
        #[test]
        fn values_round_trip(
            seed: u64,
            parts in proptest::collection::vec((any::<bool>(), 0usize..50_000), 0..5),
        ) {
            let part = |(is_noise, len)| if is_noise { noise(len, seed) } else { text(len) };
            let value: Vec<u8> = parts.into_iter().flat_map(part).collect();
            if let Some(compressed) = ValueCompressor::default().compress(&value) {
                prop_assert!(compressed.bytes.len() < value.len());
                prop_assert_eq!(decompress(&compressed), Ok(value));
            }
        }

        #[test]
        fn any_bytes_are_refused_or_of_the_length_that_was_said(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), len in 0u32..70_000,
        ) {
            let original = OriginalValue { len, checksum: 0 };
            let compressed = CompressedValue { bytes, checksum: 0, original };
            if let Ok(value) = decompress(&compressed) {
                prop_assert_eq!(value.len(), len as usize);
            }
        }
    }
}
