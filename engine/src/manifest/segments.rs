//! The part of the state that value-log segments make up: what an edit does to them.

use std::collections::BTreeMap;

use super::edit::{Edit, EditError, NEVER_EXPIRES, SegmentExpiry, SegmentPointers, SegmentSeal};

/// A value-log segment as the manifest knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentState {
    /// The length of the segment's file in bytes.
    pub file_bytes: u32,
    /// Where the segment ends, once it takes no more frames.
    pub sealed: Option<SegmentSeal>,
    /// The bytes of records that the tables refer to, a record counted once for each entry that
    /// does: an item whose metadata changed leaves entries in several tables until they merge.
    pub live_bytes: u64,
    /// 0 for a segment of the log; for one of collected records how often, at most, they have been
    /// moved.
    pub generation: u8,
    /// When the last of the entries that ever came to point into the segment expires, in Unix
    /// seconds; 0 if none did, [`NEVER_EXPIRES`] if one of them never does.
    pub expiry_max: u32,
    /// Where the last log record ends that an entry of a table ever pointed to, in bytes from the
    /// start of the file; 0 if none did, or if nobody knows: see [`SegmentState::pointers_end`].
    pub pointers_end_max: u32,
}

impl SegmentState {
    /// Whether everything that an entry of a table may point to here has expired.
    pub fn has_expired(&self, now: u32) -> bool {
        self.expires_at().is_some_and(|at| at <= now)
    }

    /// When everything that an entry of a table may point to here will have expired, in Unix
    /// seconds; `None` if there is nothing, or some of it never will.
    pub fn expires_at(&self) -> Option<u32> {
        Some(self.expiry_max).filter(|at| *at != 0 && *at != NEVER_EXPIRES)
    }

    /// Where the last log record ends that an entry of a table ever pointed to; `None` if versions
    /// that did not note it have made tables that point into the segment.
    pub fn pointers_end(&self) -> Option<u32> {
        let was_pointed_into = self.expiry_max != 0 || self.live_bytes != 0;
        let is_known = self.pointers_end_max != 0 || !was_pointed_into;
        is_known.then_some(self.pointers_end_max)
    }

    /// Whether the segment is part of the log, which replay reads.
    pub fn is_log(&self) -> bool {
        self.generation == 0
    }
}

/// What an edit does to the segments, worked out before anything is changed.
struct SegmentPlan<'a> {
    before: &'a BTreeMap<u32, SegmentState>,
    /// The touched segments' states afterwards; `None` for freed ones.
    changed: BTreeMap<u32, Option<SegmentState>>,
    id_next: u32,
}

/// A plan that no longer borrows the state.
pub(super) struct SegmentChanges {
    /// The touched segments' states afterwards; `None` for freed ones.
    pub(super) changed: BTreeMap<u32, Option<SegmentState>>,
    /// The lowest segment id never used, afterwards.
    pub(super) id_next: u32,
}

/// What `edit` makes of the segments, or why it cannot be applied.
pub(super) fn plan(
    before: &BTreeMap<u32, SegmentState>,
    id_next: u32,
    edit: &Edit,
) -> Result<SegmentChanges, EditError> {
    let mut plan = SegmentPlan { before, changed: BTreeMap::new(), id_next };
    for &(segment, file_bytes) in &edit.segments_opened {
        plan.open(segment, file_bytes)?;
    }
    for &(segment, generation) in &edit.segments_collected {
        let state = plan.known(segment)?;
        plan.changed.insert(segment, Some(SegmentState { generation, ..state }));
    }
    for seal in &edit.segments_sealed {
        plan.seal(*seal)?;
    }
    // Before the live bytes: those that an earlier edit counted tell what is known of the pointers.
    for pointers in &edit.segment_pointers {
        if !plan.was_freed(pointers.segment) {
            plan.note_pointers(*pointers)?;
        }
    }
    let mut differences: BTreeMap<u32, i128> = BTreeMap::new();
    for &(segment, difference) in &edit.live_bytes {
        *differences.entry(segment).or_default() += i128::from(difference);
    }
    for (segment, difference) in differences {
        if !plan.was_freed(segment) {
            plan.add_live_bytes(segment, difference)?;
        }
    }
    for &segment in &edit.segments_freed {
        plan.known(segment)?;
        plan.changed.insert(segment, None);
    }
    if let Some(id_next) = edit.segment_id_next {
        if id_next < plan.id_next {
            let (from, to) = (plan.id_next.into(), id_next.into());
            return Err(EditError::MovedBack { what: "the next segment number", from, to });
        }
        plan.id_next = id_next;
    }
    Ok(SegmentChanges { changed: plan.changed, id_next: plan.id_next })
}

/// What `edit` makes of the freed segments that are remembered: each until no table points into it.
pub(super) fn apply_expired(expired: &mut BTreeMap<u32, SegmentExpiry>, edit: &Edit) {
    let mut touched = BTreeMap::new();
    for &(segment, difference) in &edit.live_bytes {
        if let Some(before) = expired.get(&segment) {
            *touched.entry(segment).or_insert(i128::from(before.live_bytes)) +=
                i128::from(difference);
        }
    }
    for (segment, sum) in touched {
        let live_bytes = u64::try_from(sum.max(0)).unwrap_or(u64::MAX);
        expired.entry(segment).and_modify(|expiry| expiry.live_bytes = live_bytes);
    }
    expired.extend(edit.segments_expired.iter().map(|expiry| (expiry.segment, *expiry)));
    expired.retain(|_, expiry| expiry.live_bytes > 0);
}

impl SegmentPlan<'_> {
    fn known(&self, segment: u32) -> Result<SegmentState, EditError> {
        let state = match self.changed.get(&segment) {
            Some(changed) => *changed,
            None => self.before.get(&segment).copied(),
        };
        state.ok_or(EditError::UnknownSegment { segment })
    }

    fn was_freed(&self, segment: u32) -> bool {
        segment < self.id_next && self.known(segment).is_err()
    }

    fn open(&mut self, segment: u32, file_bytes: u32) -> Result<(), EditError> {
        if segment < self.id_next {
            return Err(EditError::SegmentIdReused { segment });
        }
        let after = segment.checked_add(1);
        self.id_next = after.ok_or(EditError::NumbersExhausted { what: "segment" })?;
        let state = SegmentState {
            file_bytes,
            sealed: None,
            live_bytes: 0,
            generation: 0,
            expiry_max: 0,
            pointers_end_max: 0,
        };
        self.changed.insert(segment, Some(state));
        Ok(())
    }

    fn seal(&mut self, seal: SegmentSeal) -> Result<(), EditError> {
        let SegmentSeal { segment, end, .. } = seal;
        let state = self.known(segment)?;
        if state.sealed.is_some() {
            return Err(EditError::SealedTwice { segment });
        }
        if end > state.file_bytes {
            let file_bytes = state.file_bytes;
            return Err(EditError::SealBeyondFile { segment, end, file_bytes });
        }
        self.changed.insert(segment, Some(SegmentState { sealed: Some(seal), ..state }));
        Ok(())
    }

    fn note_pointers(&mut self, pointers: SegmentPointers) -> Result<(), EditError> {
        let SegmentPointers { segment, expiry, end } = pointers;
        let state = self.known(segment)?;
        // What was not known once is never known again.
        let before = state.pointers_end().filter(|_| end != 0);
        let pointers_end_max = before.map_or(0, |before| before.max(end));
        let expiry_max = state.expiry_max.max(expiry);
        let after = SegmentState { expiry_max, pointers_end_max, ..state };
        self.changed.insert(segment, Some(after));
        Ok(())
    }

    fn add_live_bytes(&mut self, segment: u32, difference: i128) -> Result<(), EditError> {
        let state = self.known(segment)?;
        let sum = i128::from(state.live_bytes) + difference;
        match u64::try_from(sum) {
            Ok(live_bytes) => {
                self.changed.insert(segment, Some(SegmentState { live_bytes, ..state }));
                Ok(())
            }
            Err(_) => {
                let file_bytes = state.file_bytes;
                Err(EditError::LiveBytesOutOfRange { segment, live_bytes: sum, file_bytes })
            }
        }
    }
}
