//! Where a segment of collected records ends that the collector of an earlier life did not fill.
//!
//! A segment without a seal is never a victim, because damage would look like its end. Its frames
//! say nothing of each other, so the last one may be lost and nobody would miss it; but the index
//! would: an end is proven if no pointer leads behind it.

use larder_runtime::env::{DISK_ALIGNMENT, Env, IoClass};

use crate::canary::{self, Defect};
use crate::error::EngineError;
use crate::value_log::frame::{self, FrameHeader};
use crate::value_log::record::Place;
use crate::value_log::recovery;
use crate::value_log::segment::{self, Segment};
use crate::value_log::window::{Piece, Window};

/// The last frame that can be found in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LastFrame {
    start: u32,
    end: u32,
    /// Whether all of it is there, as it was written.
    is_whole: bool,
}

/// What is known of a segment's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentEnd {
    /// It ends here, in bytes from the start of the file.
    Proven(u32),
    /// A pointer leads behind the last frame that can be found.
    Unproven,
    /// The search was broken off.
    Unknown,
}

/// Where `segment` ends.
///
/// `pointers_end` is where the last record ends that the index ever pointed to. Nobody may write to
/// the segment meanwhile. The search is broken off when `is_closing` says so.
///
/// # Errors
///
/// [`EngineError::Open`] if a newer version has written records to it.
pub async fn end_of<E: Env>(
    env: &E,
    store: u128,
    segment: &Segment<E::File>,
    pointers_end: u32,
    is_closing: impl Fn() -> bool,
) -> Result<SegmentEnd, EngineError> {
    let last = last_frame(env, store, segment, &is_closing).await?;
    Ok(if is_closing() { SegmentEnd::Unknown } else { proven_end(last, pointers_end) })
}

fn proven_end(last: Option<LastFrame>, pointers_end: u32) -> SegmentEnd {
    let end = match last {
        None => segment::HEADER_BYTES,
        // A crash has cut its write short: what is in it was never pointed to.
        Some(last) if !last.is_whole && pointers_end <= last.start => last.start,
        Some(last) => last.end,
    };
    if pointers_end <= end || canary::has(Defect::SealUnproven) {
        SegmentEnd::Proven(end)
    } else {
        SegmentEnd::Unproven
    }
}

/// Looks for frames in all of the segment: one whose header is damaged hides none behind it.
async fn last_frame<E: Env>(
    env: &E,
    store: u128,
    segment: &Segment<E::File>,
    is_closing: &impl Fn() -> bool,
) -> Result<Option<LastFrame>, EngineError> {
    let mut window = Window::new(env, segment, IoClass::GarbageCollection);
    let place = |offset| Place { store, segment: segment.number, offset };
    let mut last: Option<(u32, FrameHeader)> = None;
    let mut offset = segment::HEADER_BYTES;
    while offset < segment.bytes && !is_closing() {
        env.yield_if_needed().await;
        let header = match window.bytes(offset, frame::HEADER_BYTES).await {
            Piece::Here(bytes) => FrameHeader::decode(bytes, place(offset)),
            Piece::Unreadable => None,
            Piece::Past => break,
        };
        let end = header.and_then(|(header, _)| {
            let end = offset.checked_add(header.padded_len())?;
            (end <= segment.bytes).then_some((header, end))
        });
        match end {
            Some((header, end)) => {
                last = Some((offset, header));
                offset = end;
            }
            None if canary::has(Defect::SealUnproven) => break,
            None => offset += DISK_ALIGNMENT as u32,
        }
    }
    let Some((start, header)) = last else { return Ok(None) };
    let is_whole = match window.bytes(start, header.len as usize).await {
        Piece::Here(bytes) => recovery::is_whole(bytes, place(start), &header)?,
        Piece::Past | Piece::Unreadable => false,
    };
    Ok(Some(LastFrame { start, end: start + header.padded_len(), is_whole }))
}

#[cfg(test)]
mod tests {
    use larder_runtime::env::{File, OpenMode};
    use larder_runtime::simulation::SimDisk;

    use super::*;
    use crate::entry::Metadata;
    use crate::value_log::frame::FrameBuilder;
    use crate::value_log::record::{Record, RecordKind};
    use crate::value_log::test_log::{self, IDENTITY, path};

    const NUMBER: u32 = 7;
    const BYTES: u32 = 64 << 10;
    /// Each frame takes two blocks.
    const FRAME_BYTES: u32 = 8 << 10;
    const VALUE_BYTES: usize = 5000;

    fn start_of(index: u32) -> u32 {
        segment::HEADER_BYTES + index * FRAME_BYTES
    }

    /// A segment with so many frames of one record each.
    fn written(frames: u32) -> SimDisk {
        let mut life = test_log::life(1, test_log::disk());
        let env = life.env();
        life.block_on(async move {
            let segment = test_log::prepare(&env, NUMBER, BYTES).await;
            for index in 0..frames {
                let payload = vec![index as u8; VALUE_BYTES];
                let metadata = Metadata::default();
                let kind = RecordKind::Put;
                let record =
                    Record { kind, metadata, key: b"key", payload: &payload, original: None };
                let offset = start_of(index);
                let place = Place { store: IDENTITY.store, segment: NUMBER, offset };
                let mut frame = FrameBuilder::new(env.buffer(FRAME_BYTES as usize), place, 0);
                frame.push(&record, crc32c::crc32c(&payload));
                let (buffer, _) = frame.seal(0, 0);
                let class = IoClass::GarbageCollection;
                let (result, _) =
                    segment.file.write_durably(class, u64::from(offset), buffer).await;
                result.expect("writes");
            }
        })
        .expect("runs");
        life.crash()
    }

    fn end(disk: &SimDisk, pointers_end: u32) -> Option<u32> {
        let mut life = test_log::life(2, disk.clone());
        let env = life.env();
        life.block_on(async move {
            let file = env.open(&path(NUMBER), OpenMode::Read).await.expect("opens");
            let segment = Segment { number: NUMBER, bytes: BYTES, file };
            let found = end_of(&env, IDENTITY.store, &segment, pointers_end, || false).await;
            match found.expect("reads") {
                SegmentEnd::Proven(end) => Some(end),
                SegmentEnd::Unproven => None,
                SegmentEnd::Unknown => panic!("nobody is closing"),
            }
        })
        .expect("runs")
    }

    #[test]
    fn whole_frames_end_where_the_last_one_does() {
        for frames in 0..=7 {
            let disk = written(frames);
            for pointers_end in [0, start_of(frames).saturating_sub(3000)] {
                assert_eq!(end(&disk, pointers_end), Some(start_of(frames)), "{frames} frames");
            }
            assert_eq!(end(&disk, start_of(frames) + 1), None, "a pointer leads behind the end");
        }
    }

    #[test]
    fn a_damaged_header_hides_nothing_behind_it() {
        let clean = written(4);
        for damaged in 0..3 {
            let mut disk = clean.clone();
            disk.flip_bit(path(NUMBER), u64::from(start_of(damaged)) + 9, 1);
            assert_eq!(end(&disk, start_of(4) - 3000), Some(start_of(4)), "frame {damaged}");
            let mut disk = clean.clone();
            disk.lose_sector(path(NUMBER), u64::from(start_of(damaged)));
            assert_eq!(end(&disk, start_of(4) - 3000), Some(start_of(4)), "frame {damaged}");
        }
    }

    #[test]
    fn a_last_frame_that_is_lost_is_missed_by_those_who_point_to_it() {
        let mut disk = written(4);
        disk.flip_bit(path(NUMBER), u64::from(start_of(3)) + 9, 1);
        assert_eq!(end(&disk, start_of(4) - 3000), None);
        assert_eq!(end(&disk, start_of(3) - 3000), Some(start_of(3)), "nothing points to it");
    }

    #[test]
    fn a_write_that_a_crash_has_cut_short_is_left_out() {
        let mut disk = written(4);
        disk.zero_sector(path(NUMBER), u64::from(start_of(3)) + 4096);
        assert_eq!(end(&disk, start_of(3) - 3000), Some(start_of(3)));
        // What was pointed to was whole once: that is damage, and the collector will meet it.
        assert_eq!(end(&disk, start_of(4) - 3000), Some(start_of(4)));
    }
}
