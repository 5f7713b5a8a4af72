//! What the engine may still do, and should not. Whoever repairs one sets it to false, and the
//! simulation holds the engine to it from then on.

pub(super) struct Tolerated {
    /// On a full disk deletes and clears may be refused.
    pub(super) deletes_refused: bool,
    /// On a full disk the shard may take no more changes until it is started again.
    pub(super) stops: bool,
    /// Writes may stay refused although there is room again.
    pub(super) writes_stay_refused: bool,
    /// On a full disk the shard may not start before there is room.
    pub(super) starts_refused: bool,
    /// Level 0 may grow without a bound while merges take their time.
    pub(super) level_zero_grows: bool,
}

pub(super) const TOLERATED: Tolerated = Tolerated {
    deletes_refused: true,
    stops: true,
    writes_stay_refused: true,
    starts_refused: true,
    level_zero_grows: true,
};
