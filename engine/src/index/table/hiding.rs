//! What a table's entries hide of older ones, as far as that is known before a merge meets both.

/// All entries, in the unit that [`Hiding::share`] is given in.
pub const ALL: u32 = 1000;

/// What the entries of a table hide, if anything older is in its range. An estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hiding {
    /// Of a thousand entries, so many hide an older one of their key; all, until it is estimated.
    pub share: u32,
    /// The mean length in bytes of the log records that the hidden entries point to, if some of
    /// these entries were seen. Those that point to nothing count with 0.
    pub record_bytes: Option<u64>,
}

impl Default for Hiding {
    fn default() -> Self {
        Self { share: ALL, record_bytes: None }
    }
}

impl Hiding {
    /// How many bytes of log records so many entries hide; `unseen` bytes if all of them hide one,
    /// where none of those was seen.
    pub fn bytes(&self, entries: u64, unseen: u64) -> u64 {
        let all = self
            .record_bytes
            .map_or(u128::from(unseen), |each| u128::from(entries) * u128::from(each));
        u64::try_from(all * u128::from(self.share) / u128::from(ALL)).unwrap_or(u64::MAX)
    }
}
