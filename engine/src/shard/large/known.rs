//! What is known of the uploads of a shard: which wait for their commit, for how long, and who may
//! begin how many.
//!
//! Places and bytes for staged values are shared by what is left: a namespace has no more than are
//! free for all others, and a client a quarter of that. So whoever comes finds room, however much
//! one has taken, and who is alone may take a good part.

use std::collections::BTreeMap;

use super::upload::{Stage, Upload};
use crate::large::LargeOptions;

/// What an upload counts for the quota of its namespace besides its value, in bytes: the records
/// that say what stands where.
pub(super) const UPLOAD_BYTES: u64 = 1024;

/// A client has this part of what its namespace may have.
const CLIENTS_PER_SHARE: u64 = 4;

/// An upload that waits for its commit.
#[derive(Clone, Copy, Debug)]
struct Staged {
    namespace: u32,
    /// Whose it is; `None` if that was before the start.
    client: Option<u64>,
    /// The length of its value.
    bytes: u64,
    /// The Unix seconds at which it was begun and until which it may be committed.
    began: u32,
    until: u32,
    /// Chunks that it has, and that have come; the same one may come again.
    chunks: u32,
    come: u32,
}

impl Staged {
    /// The Unix second until which it is kept if no other chunk comes.
    fn due(&self, options: &LargeOptions) -> u32 {
        let come = u64::from(self.come.min(self.chunks));
        let earned = u64::from(options.staging_seconds) * come / u64::from(self.chunks.max(1));
        let seconds = u64::from(options.first_chunk_seconds) + earned;
        let due = u64::from(self.began) + seconds;
        u32::try_from(due).unwrap_or(u32::MAX).min(self.until)
    }
}

/// Uploads, and their bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    count: u64,
    bytes: u64,
}

impl Taken {
    fn of<'a>(staged: impl Iterator<Item = &'a Staged>) -> Self {
        staged.fold(Self::default(), |taken, staged| Self {
            count: taken.count + 1,
            bytes: taken.bytes + staged.bytes,
        })
    }

    /// Whether as many as these, so many times, and one more leave room where this is free.
    fn fits(self, times: u64, bytes: u64, free: Self) -> bool {
        self.count * times < free.count && self.bytes * times + bytes <= free.bytes
    }
}

/// What is known of the uploads of a shard.
#[derive(Debug)]
pub(in crate::shard) struct Uploads {
    /// Those that wait for their commit.
    staged: BTreeMap<u64, Staged>,
    /// By namespace, the bytes that count for its quota, those of staged uploads included.
    bytes: BTreeMap<u32, u64>,
    /// Uploads with these numbers were there when the shard was opened.
    found_below: u64,
    /// Those of them below this one are counted.
    counted_below: u64,
}

impl Uploads {
    /// Nothing is known but that later uploads have at least the number `first`.
    pub(in crate::shard) fn new(first: u64) -> Self {
        let (staged, bytes) = Default::default();
        Self { staged, bytes, found_below: first, counted_below: 0 }
    }

    /// Bytes that count for the quota of a namespace.
    pub(in crate::shard) fn bytes_of(&self, namespace: u32) -> u64 {
        self.bytes.get(&namespace).copied().unwrap_or(0)
    }

    /// Whether `client` may stage so many bytes more in a namespace.
    pub(super) fn has_room(
        &self,
        (namespace, client): (u32, u64),
        bytes: u64,
        options: &LargeOptions,
    ) -> bool {
        let all = Taken::of(self.staged.values());
        let in_namespace = || self.staged.values().filter(|staged| staged.namespace == namespace);
        let by_client = in_namespace().filter(|staged| staged.client == Some(client));
        let free = Taken {
            count: (options.staged_max as u64).saturating_sub(all.count),
            bytes: options.staged_bytes_max.saturating_sub(all.bytes),
        };
        Taken::of(in_namespace()).fits(1, bytes, free)
            && Taken::of(by_client).fits(CLIENTS_PER_SHARE, bytes, free)
    }

    /// Counts an upload of `client` that begins now.
    pub(super) fn begin(&mut self, number: u64, upload: &Upload, (client, now): (u64, u32)) {
        self.add(number, upload, Some((client, now)));
    }

    fn add(&mut self, number: u64, upload: &Upload, begun: Option<(u64, u32)>) {
        *self.bytes.entry(upload.namespace).or_default() += counted(upload);
        if upload.stage != Stage::Staged {
            return;
        }
        let chunks = upload.large.chunks();
        // What has come before the start is not known: it has all of its time.
        let (client, began, come) = match begun {
            Some((client, now)) => (Some(client), now, 0),
            None => (None, upload.until, chunks),
        };
        let (namespace, until) = (upload.namespace, upload.until);
        let bytes = upload.large.len.into();
        let staged = Staged { namespace, client, bytes, began, until, chunks, come };
        self.staged.insert(number, staged);
    }

    /// Counts an upload that is met for the first time since the start. They are met in ascending
    /// order. Whether that is so.
    pub(super) fn meet(&mut self, number: u64, upload: &Upload) -> bool {
        let is_new = !self.is_counted(number);
        if is_new {
            self.add(number, upload, None);
            self.counted_below = number + 1;
        }
        is_new
    }

    fn is_counted(&self, number: u64) -> bool {
        number >= self.found_below || number < self.counted_below
    }

    /// Whether a staged upload has waited too long for its next chunk at Unix second `now`.
    pub(super) fn is_overdue(&self, number: u64, now: u32, options: &LargeOptions) -> bool {
        self.staged.get(&number).is_some_and(|staged| now >= staged.due(options))
    }

    /// A chunk has come, which earns its upload time.
    pub(super) fn note_chunk(&mut self, number: u64) {
        if let Some(staged) = self.staged.get_mut(&number) {
            staged.come = staged.come.saturating_add(1);
        }
    }

    /// An upload waits for its commit no longer.
    pub(super) fn commit(&mut self, number: u64) {
        self.staged.remove(&number);
    }

    /// Forgets an upload that is gone.
    pub(super) fn remove(&mut self, number: u64, upload: &Upload) {
        self.staged.remove(&number);
        if !self.is_counted(number) {
            return;
        }
        if let Some(bytes) = self.bytes.get_mut(&upload.namespace) {
            *bytes = bytes.saturating_sub(counted(upload));
            if *bytes == 0 {
                self.bytes.remove(&upload.namespace);
            }
        }
    }

    /// The least number from `from` on that none has that waits for its commit.
    pub(super) fn free_number(&self, from: u64) -> u64 {
        (from..).find(|number| !self.staged.contains_key(number)).expect("few are taken")
    }
}

/// What an upload counts for the quota of its namespace, in bytes.
fn counted(upload: &Upload) -> u64 {
    u64::from(upload.large.len) + UPLOAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::large::LargeValue;

    const OPTIONS: LargeOptions = LargeOptions {
        chunk_bytes_max: 100,
        staging_seconds: 1000,
        first_chunk_seconds: 30,
        staged_max: 100,
        staged_bytes_max: 1_000_000,
        round_nanoseconds: 1,
    };

    fn upload(namespace: u32, number: u64, len: u32) -> Upload {
        let large = LargeValue { upload: number, len, chunk_bytes: 100 };
        let (record, item) = (b"r".to_vec(), Vec::new());
        Upload { namespace, record, item, stage: Stage::Staged, until: 5000, large }
    }

    /// Begins as many as there is room for; how many those are.
    fn fill(uploads: &mut Uploads, namespace: u32, clients: u64, len: u32) -> u64 {
        let mut count = 0;
        for client in 0..clients {
            let who = (namespace, client);
            while uploads.has_room(who, len.into(), &OPTIONS) {
                let number = uploads.free_number(0);
                uploads.begin(number, &upload(namespace, number, len), (client, 0));
                count += 1;
            }
        }
        count
    }

    #[test]
    fn nobody_takes_what_others_need() {
        let mut uploads = Uploads::new(0);
        assert_eq!(fill(&mut uploads, 1, 1, 10), 20, "a client has a fifth");
        assert_eq!(fill(&mut uploads, 1, 9, 10), 30, "a namespace has a half, with the client's");
        assert_eq!(fill(&mut uploads, 2, 9, 10), 25);
        assert!(fill(&mut uploads, 3, 9, 10) > 0 && fill(&mut uploads, 4, 9, 10) > 0);
        let mut uploads = Uploads::new(0);
        let most = u64::from(fill(&mut uploads, 1, 9, 100_000) as u32);
        assert!((1..=5).contains(&most), "a half of the bytes: {most}");
        assert!(uploads.has_room((2, 0), 100_000, &OPTIONS));
        assert!(!uploads.has_room((2, 0), 1_000_001, &OPTIONS));
    }

    #[test]
    fn beside_one_of_the_longest_there_is_room_for_others() {
        let mut uploads = Uploads::new(0);
        let longest = OPTIONS.len_max();
        for (number, who) in [(1, (1, 0)), (2, (1, 1)), (3, (2, 0))] {
            assert!(uploads.has_room(who, longest.into(), &OPTIONS), "{who:?}");
            uploads.begin(number, &upload(who.0, number, longest), (who.1, 0));
        }
        assert!(!uploads.has_room((3, 0), longest.into(), &OPTIONS));
    }

    #[test]
    fn who_brings_nothing_is_kept_for_a_short_time() {
        let mut uploads = Uploads::new(0);
        uploads.begin(7, &upload(1, 7, 1000), (0, 100));
        let is_over = |uploads: &Uploads, now| uploads.is_overdue(7, now, &OPTIONS);
        assert!(!is_over(&uploads, 129) && is_over(&uploads, 130));
        uploads.note_chunk(7);
        assert!(!is_over(&uploads, 229) && is_over(&uploads, 230), "one of ten chunks");
        (0..20).for_each(|_| uploads.note_chunk(7));
        assert!(!is_over(&uploads, 1129) && is_over(&uploads, 1130), "no more than all");
        // What was there before the start has all of its time.
        let mut uploads = Uploads::new(10);
        assert!(uploads.meet(7, &upload(1, 7, 1000)));
        assert!(!is_over(&uploads, 4999) && is_over(&uploads, 5000));
    }

    #[test]
    fn an_upload_counts_for_more_than_its_bytes() {
        let mut uploads = Uploads::new(0);
        uploads.begin(7, &upload(1, 7, 1), (0, 0));
        uploads.begin(8, &upload(1, 8, 1), (0, 0));
        assert_eq!(uploads.bytes_of(1), 2 * (1 + UPLOAD_BYTES));
        uploads.commit(8);
        uploads.remove(7, &upload(1, 7, 1));
        assert_eq!(uploads.bytes_of(1), 1 + UPLOAD_BYTES);
        uploads.remove(8, &upload(1, 8, 1));
        assert_eq!(uploads.bytes_of(1), 0);
        assert_eq!((uploads.free_number(7), uploads.free_number(0)), (7, 0));
    }
}
