//! What an exptime means.

/// The longest exptime that counts from now, in seconds: 30 days. Larger ones are Unix times.
pub const RELATIVE_SECONDS_MAX: i64 = 60 * 60 * 24 * 30;

/// When an item is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It stays.
    Never,
    /// At this Unix second, which is after `now` and never 0.
    At(u32),
    /// It is gone already.
    AlreadyExpired,
}

/// Reads a raw exptime at `now_unix` (Unix seconds).
///
/// 0 is never, negative is already expired, at most [`RELATIVE_SECONDS_MAX`] counts from now, and
/// anything larger is a Unix time. Times after what 32 bits hold become the last that they hold.
pub fn expiry_from_exptime(exptime: i64, now_unix: u32) -> Expiry {
    if exptime == 0 {
        return Expiry::Never;
    }
    if exptime < 0 {
        return Expiry::AlreadyExpired;
    }
    let now = i64::from(now_unix);
    let unix = if exptime <= RELATIVE_SECONDS_MAX { now + exptime } else { exptime };
    if unix <= now {
        return Expiry::AlreadyExpired;
    }
    Expiry::At(u32::try_from(unix).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exptimes_mean_what_they_mean_to_memcached() {
        let now = 1_800_000_000;
        for (exptime, expiry) in [
            (0, Expiry::Never),
            (-1, Expiry::AlreadyExpired),
            (i64::from(i32::MIN), Expiry::AlreadyExpired),
            (i64::MIN, Expiry::AlreadyExpired),
            (1, Expiry::At(now + 1)),
            (RELATIVE_SECONDS_MAX, Expiry::At(now + 2_592_000)),
            (RELATIVE_SECONDS_MAX + 1, Expiry::AlreadyExpired),
            (i64::from(now), Expiry::AlreadyExpired),
            (i64::from(now) + 1, Expiry::At(now + 1)),
            (i64::from(i32::MAX), Expiry::At(2_147_483_647)),
            (i64::MAX, Expiry::At(u32::MAX)),
        ] {
            assert_eq!(expiry_from_exptime(exptime, now), expiry, "exptime {exptime}");
        }
        assert_eq!(expiry_from_exptime(60, u32::MAX - 1), Expiry::At(u32::MAX));
        assert_eq!(expiry_from_exptime(1, 0), Expiry::At(1));
    }
}
