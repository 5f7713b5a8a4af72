//! Which of a shard's two caches gets memory of the other: pure.
//!
//! For each cache it is counted how many reads of the device one more step of memory would have
//! saved ([`Cache::note_read`](crate::cache::Cache::note_read)). A step goes from one to the other
//! where that saves clearly more than it costs, beyond what chance brings about. What a cache would
//! lose is known from what one more step would have saved it; and where it holds all that is asked
//! for, which says nothing of what it would lose, from what the step saved that it got last.

/// Memory moves between the caches in parts of this many of what both have together.
pub(super) const STEPS: usize = 32;

/// After so many windows what was counted before counts half.
const WINDOWS_MAX: u32 = 32;

/// A step that would not have saved so many reads within that time is not worth moving.
const SAVED_MIN: u64 = 32;

/// How many standard deviations are no chance.
const DEVIATIONS: u64 = 4;

/// For how many windows a cache that got a step is left alone while it fills.
const FILLING_WINDOWS_MAX: u32 = 60;

/// What is taken to be lost counts half after so many windows: the least and the most. Each time
/// that it turns out to be so again it is twice as many.
const HALF_LIFE: (u32, u32) = (32, 256);

/// The caches of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheKind {
    /// That of items' values.
    Values,
    /// That of tables' blocks.
    Blocks,
}

/// What was seen of a cache in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheSeen {
    /// How large it is, in bytes.
    pub size: usize,
    /// What its entries take, in bytes.
    pub held: usize,
    /// Look-ups that it answered.
    pub hits: u64,
    /// Reads of the device that one more step of memory would have saved.
    pub saved: u64,
    /// Whether it may give up a step.
    pub can_give: bool,
    /// Whether it may get one.
    pub can_take: bool,
}

/// What was counted since memory was moved last, by cache, and what is known from before.
#[derive(Clone, Debug, Default)]
pub struct CacheDivision {
    counted: [Counted; 2],
    windows: u32,
    /// The caches take up or drop entries because of the last move: nothing counts yet.
    is_settling: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    hits: u64,
    saved: u64,
    /// What the cache held when counting began.
    held_before: usize,
    /// For how many windows the cache is left alone if it is filling.
    filling_windows: u32,
    worth: Worth,
}

/// What the last step saved that a cache got, and so what it would lose with it.
#[derive(Clone, Copy, Debug, Default)]
struct Worth {
    /// How large the cache was with it, in bytes; a larger one loses less.
    size: usize,
    /// Reads that it saved, and look-ups that the cache answered meanwhile.
    saved: u64,
    hits: u64,
    age: u32,
    half_life: u32,
}

impl CacheDivision {
    /// Takes in what was seen of the values' and the blocks' cache in a window, and says which of
    /// them is to get a step of memory, of `step` bytes, from the other.
    pub fn judge(&mut self, seen: [CacheSeen; 2], step: usize) -> Option<CacheKind> {
        for counted in &mut self.counted {
            counted.worth.age = counted.worth.age.saturating_add(1);
            counted.filling_windows = counted.filling_windows.saturating_sub(1);
        }
        if std::mem::take(&mut self.is_settling) {
            self.begin(seen);
            return None;
        }
        self.windows += 1;
        for (counted, seen) in self.counted.iter_mut().zip(seen) {
            counted.hits += seen.hits;
            counted.saved += seen.saved;
        }
        let is_worth = |to: &CacheKind| self.is_worth(*to, seen, step);
        let moved = [CacheKind::Values, CacheKind::Blocks].into_iter().find(is_worth);
        if let Some(to) = moved {
            let to = to as usize;
            self.counted[to].got(seen[to].size, step);
            self.is_settling = true;
        } else if self.windows >= WINDOWS_MAX {
            self.windows /= 2;
            for (counted, seen) in self.counted.iter_mut().zip(seen) {
                counted.hits /= 2;
                counted.saved /= 2;
                counted.held_before = seen.held;
            }
        }
        moved
    }

    /// Begins to count anew.
    fn begin(&mut self, seen: [CacheSeen; 2]) {
        self.windows = 0;
        for (counted, seen) in self.counted.iter_mut().zip(seen) {
            (counted.hits, counted.saved, counted.held_before) = (0, 0, seen.held);
        }
    }

    fn is_worth(&self, to: CacheKind, seen: [CacheSeen; 2], step: usize) -> bool {
        let (to, from) = match to {
            CacheKind::Values => (CacheKind::Values as usize, CacheKind::Blocks as usize),
            CacheKind::Blocks => (CacheKind::Blocks as usize, CacheKind::Values as usize),
        };
        let giver = &self.counted[from];
        if !seen[to].can_take || !seen[from].can_give || giver.is_filling(seen[from], step) {
            return false;
        }
        let gain = self.counted[to].saved;
        let cost = giver.saved.max(giver.loss(seen[from].size, step));
        let is_clear = gain.saturating_mul(4) > cost.saturating_mul(5);
        let deviation = DEVIATIONS * DEVIATIONS * gain.saturating_add(cost);
        gain >= SAVED_MIN && is_clear && (gain - cost).saturating_mul(gain - cost) > deviation
    }
}

impl Counted {
    /// Notes that the cache, which has `size` bytes, gets a step.
    fn got(&mut self, size: usize, step: usize) {
        let size = size + step;
        let is_again = size.abs_diff(self.worth.size) < step / 2;
        let half_life = if is_again { self.worth.half_life * 2 } else { HALF_LIFE.0 };
        let half_life = half_life.clamp(HALF_LIFE.0, HALF_LIFE.1);
        self.worth = Worth { size, saved: self.saved, hits: self.hits, age: 0, half_life };
        self.filling_windows = FILLING_WINDOWS_MAX;
    }

    /// Whether the cache got a step not long ago that it has not filled yet.
    fn is_filling(&self, seen: CacheSeen, step: usize) -> bool {
        self.filling_windows > 0 && seen.held > self.held_before + step / 8
    }

    /// How many reads a step less would have cost a cache of `size` bytes, going by what its last
    /// step saved and by how much the cache is used.
    fn loss(&self, size: usize, step: usize) -> u64 {
        let Worth { hits, saved, age, half_life, .. } = self.worth;
        if size > self.worth.size + step / 2 || half_life == 0 {
            return 0;
        }
        let saved = u128::from(saved) * u128::from(self.hits) / u128::from(hits.max(1));
        let halvings = (age / half_life).min(u64::BITS - 1);
        u64::try_from(saved).unwrap_or(u64::MAX) >> halvings
    }
}

#[cfg(test)]
mod tests;
