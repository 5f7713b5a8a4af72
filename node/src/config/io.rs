//! What the classes of disk requests get, as people write it: `compaction=100,scan=50`.

use std::fmt;
use std::str::FromStr;

use larder_runtime::env::{IO_CLASSES, IoClass};
use serde::{Serialize, Serializer};

use super::Size;
use crate::limits::{IO_CAP_CORE_MIN, IO_CAP_RANGE, IO_SHARES_RANGE};

/// Shares of classes; those that are not named keep theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoShares([Option<u32>; IO_CLASSES]);

/// Caps of classes; those that are not named keep theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoCaps([Option<IoCap>; IO_CLASSES]);

/// The most that a class may move in a second, of the whole node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoCap {
    /// As much as the disk gives it.
    Unlimited,
    /// So many bytes.
    Limited(Size),
}

/// What is to change of classes of disk requests while the node runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoChange {
    /// Their shares.
    pub shares: IoShares,
    /// Their caps.
    pub caps: IoCaps,
}

impl IoShares {
    /// The shares of a class, if it is named.
    pub fn of(&self, class: IoClass) -> Option<u32> {
        self.0[class as usize]
    }
}

impl IoCaps {
    /// The cap of a class, if it is named.
    pub fn of(&self, class: IoClass) -> Option<IoCap> {
        self.0[class as usize]
    }
}

impl IoCap {
    /// What each of so many cores may move in a second, in bytes; `None` for no limit.
    pub fn of_core(self, cores: usize) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::Limited(size) => Some((size.0 / cores.max(1) as u64).max(IO_CAP_CORE_MIN)),
        }
    }
}

impl FromStr for IoShares {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (least, most) = (IO_SHARES_RANGE.start(), IO_SHARES_RANGE.end());
        let shares = |text: &str| {
            let number = text.parse().ok().filter(|number| IO_SHARES_RANGE.contains(number));
            number.ok_or_else(|| format!("`{text}` are no shares from {least} to {most}"))
        };
        by_class(text, shares).map(Self)
    }
}

impl FromStr for IoCaps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        by_class(text, cap).map(Self)
    }
}

fn cap(text: &str) -> Result<IoCap, String> {
    if text == "none" {
        return Ok(IoCap::Unlimited);
    }
    let (least, most) = (Size(*IO_CAP_RANGE.start()), Size(*IO_CAP_RANGE.end()));
    let size = text.parse::<Size>().ok().filter(|size| IO_CAP_RANGE.contains(&size.0));
    size.map(IoCap::Limited).ok_or_else(|| {
        format!("`{text}` is neither `none` nor bytes a second from {least} to {most}, such as 50M")
    })
}

/// Reads `class=value` for several classes.
fn by_class<T: Copy>(
    text: &str,
    value: impl Fn(&str) -> Result<T, String>,
) -> Result<[Option<T>; IO_CLASSES], String> {
    let mut values = [None; IO_CLASSES];
    for pair in text.split(',') {
        let Some((name, given)) = pair.split_once('=') else {
            return Err(format!("`{pair}` is not CLASS=VALUE, such as compaction=100"));
        };
        let class = IoClass::named(name)?;
        let place = &mut values[class as usize];
        if place.is_some() {
            return Err(format!("{name} is given twice"));
        }
        *place = Some(value(given).map_err(|reason| format!("{name}: {reason}"))?);
    }
    Ok(values)
}

fn write_by_class<T: fmt::Display>(
    formatter: &mut fmt::Formatter<'_>,
    values: &[Option<T>; IO_CLASSES],
) -> fmt::Result {
    let mut comma = "";
    for class in IoClass::ALL {
        if let Some(value) = &values[class as usize] {
            write!(formatter, "{comma}{}={value}", class.name())?;
            comma = ",";
        }
    }
    Ok(())
}

impl fmt::Display for IoShares {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_by_class(formatter, &self.0)
    }
}

impl fmt::Display for IoCaps {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_by_class(formatter, &self.0)
    }
}

impl fmt::Display for IoCap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => formatter.write_str("none"),
            Self::Limited(size) => size.fmt(formatter),
        }
    }
}

impl Serialize for IoShares {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for IoCaps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_caps_are_read_and_written() {
        let shares: IoShares = "scan=50,commit=1000".parse().expect("shares");
        assert_eq!((shares.of(IoClass::Scan), shares.of(IoClass::Read)), (Some(50), None));
        assert_eq!(shares.to_string(), "commit=1000,scan=50");
        let caps: IoCaps = "scrub=10M,compaction=none".parse().expect("caps");
        assert_eq!(caps.of(IoClass::Compaction), Some(IoCap::Unlimited));
        let scrub = caps.of(IoClass::Scrub).expect("it is named");
        assert_eq!((scrub.of_core(4), IoCap::Unlimited.of_core(4)), (Some(10 << 18), None));
        assert_eq!(caps.to_string(), "compaction=none,scrub=10M");
        assert_eq!(scrub.of_core(1000), Some(IO_CAP_CORE_MIN));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("", "`` is not CLASS=VALUE"),
            ("scan", "`scan` is not CLASS=VALUE"),
            ("scan=1,", "`` is not CLASS=VALUE"),
            ("scans=1", "no class `scans`; there are commit, read, scan, flush"),
            ("scan=0", "scan: `0` are no shares from 1 to"),
            ("scan=-1", "scan: `-1`"),
            ("scan=1.5", "scan: `1.5`"),
            ("scan=99999999999999999999", "no shares"),
            ("scan=1,scan=2", "scan is given twice"),
        ] {
            let error = text.parse::<IoShares>().expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
        for (text, part) in [
            ("read=1", "read: `1` is neither `none` nor bytes a second from 1M"),
            ("read=fast", "read: `fast` is neither"),
            ("read=9000T", "read: `9000T` is neither"),
            ("read", "is not CLASS=VALUE"),
        ] {
            let error = text.parse::<IoCaps>().expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
