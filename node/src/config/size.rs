//! Sizes, thresholds, file modes, CPU lists and durability modes as people write them.

use std::fmt;
use std::str::FromStr;

use larder_engine::value_log::commit::Durability;
use serde::{Serialize, Serializer};

/// A number of bytes: digits, and `K`, `M`, `G` or `T` for powers of 1,024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = UNITS.iter().find(|(letter, _)| text.to_ascii_uppercase().ends_with(*letter));
        let (digits, shift) =
            unit.map_or((text, 0), |(_, shift)| (&text[..text.len() - 1], *shift));
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = if is_number { digits.parse::<u64>().ok() } else { None };
        number
            .and_then(|number| number.checked_mul(1 << shift))
            .map(Self)
            .ok_or_else(|| "not a size; write bytes, or a number with K, M, G or T".to_owned())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, shift)| self.0 != 0 && self.0.is_multiple_of(1 << shift));
        match unit {
            Some((letter, shift)) => write!(formatter, "{}{letter}", self.0 >> shift),
            None => write!(formatter, "{}", self.0),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How much larger than what lives the files may be, in hundredths: written `1.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceAmplification(pub u32);

impl FromStr for SpaceAmplification {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = crate::limits::SPACE_AMPLIFICATION_RANGE;
        let (least, most) = (Self(*range.start()), Self(*range.end()));
        let refused = || format!("not a factor from {least} to {most}, such as 1.5");
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 2 {
            return Err(refused());
        }
        let hundredths: u32 = format!("{part:0<2}").parse().map_err(|_| refused())?;
        let percent = whole.parse::<u32>().ok().and_then(|whole| whole.checked_mul(100));
        let percent = percent.and_then(|whole| whole.checked_add(hundredths));
        percent.filter(|percent| range.contains(percent)).map(Self).ok_or_else(refused)
    }
}

impl fmt::Display for SpaceAmplification {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 100, self.0 % 100);
        match (part, part % 10) {
            (0, _) => write!(formatter, "{whole}"),
            (_, 0) => write!(formatter, "{whole}.{}", part / 10),
            _ => write!(formatter, "{whole}.{part:02}"),
        }
    }
}

impl Serialize for SpaceAmplification {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From which length on values are compressed: a size, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressFrom(pub Option<Size>);

impl CompressFrom {
    /// The engine's form of it, in bytes.
    pub fn engine(self) -> Option<usize> {
        self.0.map(|size| usize::try_from(size.0).unwrap_or(usize::MAX))
    }
}

impl FromStr for CompressFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = match text {
            "off" => return Ok(Self(None)),
            _ => text.parse::<Size>().ok().filter(|size| size.0 > 0),
        };
        let refused = || "not a size above 0, such as 1K, and not `off`".to_owned();
        size.map(|size| Self(Some(size))).ok_or_else(refused)
    }
}

impl fmt::Display for CompressFrom {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(size) => write!(formatter, "{size}"),
            None => formatter.write_str("off"),
        }
    }
}

impl Serialize for CompressFrom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Who may use a file, as `chmod` takes it: up to three octal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl FromStr for FileMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_octal = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let mode = if is_octal { u32::from_str_radix(text, 8).ok() } else { None };
        let mode = mode.filter(|mode| *mode <= 0o777).map(Self);
        mode.ok_or_else(|| "not a mode; write octal digits up to 777, such as 770".to_owned())
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:o}", self.0)
    }
}

impl Serialize for FileMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// When a write is acknowledged: `sync`, `interval:<ms>` or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurabilityMode {
    /// After the device flush that covers it.
    Sync,
    /// At once; the log is flushed every so many milliseconds.
    Interval(u32),
    /// At once; the log is flushed when the engine needs it.
    None,
}

impl DurabilityMode {
    /// The engine's form of it.
    pub fn engine(self) -> Durability {
        match self {
            Self::Sync => Durability::Sync,
            Self::Interval(milliseconds) => {
                Durability::Interval(u64::from(milliseconds) * 1_000_000)
            }
            Self::None => Durability::None,
        }
    }
}

impl FromStr for DurabilityMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let milliseconds = |text: &str| text.parse().ok().filter(|milliseconds| *milliseconds > 0);
        match text {
            "sync" => Ok(Self::Sync),
            "none" => Ok(Self::None),
            _ => text
                .strip_prefix("interval:")
                .and_then(milliseconds)
                .map(Self::Interval)
                .ok_or_else(|| "write sync, interval:<milliseconds> or none".to_owned()),
        }
    }
}

impl fmt::Display for DurabilityMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sync => formatter.write_str("sync"),
            Self::Interval(milliseconds) => write!(formatter, "interval:{milliseconds}"),
            Self::None => formatter.write_str("none"),
        }
    }
}

impl Serialize for DurabilityMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a node's cores run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuntimeKind {
    /// Larder's own ring.
    Ring,
    /// glommio, to compare with.
    #[cfg(feature = "runtime-glommio")]
    Glommio,
}

impl FromStr for RuntimeKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ring" => Ok(Self::Ring),
            #[cfg(feature = "runtime-glommio")]
            "glommio" => Ok(Self::Glommio),
            #[cfg(not(feature = "runtime-glommio"))]
            "glommio" => Err("this larder was built without glommio; build it with \
                              `cargo build --release --features larder/runtime-glommio`"
                .to_owned()),
            _ => Err("write ring or glommio".to_owned()),
        }
    }
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring => formatter.write_str("ring"),
            #[cfg(feature = "runtime-glommio")]
            Self::Glommio => formatter.write_str("glommio"),
        }
    }
}

impl Serialize for RuntimeKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// CPU numbers: `0-3,8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

/// The largest CPU number that the kernel's sets have room for, plus one.
const CPUS_MAX: usize = 1024;

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || "not a list of CPUs; write numbers and ranges such as 0-3,8".to_owned();
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: usize = first.trim().parse().map_err(|_| malformed())?;
            let last: usize = last.trim().parse().map_err(|_| malformed())?;
            if first > last || last >= CPUS_MAX {
                return Err(malformed());
            }
            cpus.extend(first..=last);
        }
        let mut sorted = cpus.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != cpus.len() {
            return Err("a CPU is named twice".to_owned());
        }
        Ok(Self(cpus))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, cpu) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(formatter, "{comma}{cpu}")?;
        }
        Ok(())
    }
}

impl Serialize for CpuList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes, again) in [
            ("0", 0, "0"),
            ("1", 1, "1"),
            ("1023", 1023, "1023"),
            ("1024", 1024, "1K"),
            ("1k", 1024, "1K"),
            ("1536K", 1_572_864, "1536K"),
            ("64M", 64 << 20, "64M"),
            ("1G", 1 << 30, "1G"),
            ("2048M", 2 << 30, "2G"),
            ("3t", 3 << 40, "3T"),
        ] {
            let size: Size = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((size.0, size.to_string().as_str()), (bytes, again), "{text}");
        }
        for text in ["", "K", "-1", "+1", "1.5G", "1GB", "1 G", "99999999999T", "Ö", "1Ö"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn thresholds_of_compression_are_read_and_written() {
        for (text, bytes) in [("1K", Some(1024)), ("300", Some(300)), ("off", None)] {
            let read: CompressFrom = text.parse().expect(text);
            assert_eq!((read.engine(), read.to_string()), (bytes, text.to_owned()));
        }
        for text in ["", "0", "0K", "on", "OFF", "-1", "none"] {
            let error = text.parse::<CompressFrom>().expect_err(text);
            assert!(error.contains("above 0") && error.contains("`off`"), "{error}");
        }
    }

    #[test]
    fn durability_modes_are_read_and_written() {
        for (text, mode) in [
            ("sync", DurabilityMode::Sync),
            ("interval:250", DurabilityMode::Interval(250)),
            ("none", DurabilityMode::None),
        ] {
            assert_eq!(text.parse(), Ok(mode));
            assert_eq!(mode.to_string(), text);
        }
        for text in ["", "Sync", "interval", "interval:", "interval:0", "interval:-1", "interval:x"]
        {
            assert!(text.parse::<DurabilityMode>().is_err(), "{text}");
        }
        assert_eq!(DurabilityMode::Interval(3).engine(), Durability::Interval(3_000_000));
    }

    #[test]
    fn cpu_lists_are_read_and_written() {
        let list: CpuList = "0-2,5".parse().expect("a list");
        assert_eq!((list.to_string().as_str(), list.0), ("0,1,2,5", vec![0, 1, 2, 5]));
        for text in ["", "a", "3-1", "1,1", "0-2000", "1-", "-1"] {
            assert!(text.parse::<CpuList>().is_err(), "{text}");
        }
    }

    #[test]
    fn space_amplifications_are_read_and_written() {
        for (text, percent) in
            [("1.5", 150), ("1.1", 110), ("2", 200), ("1.25", 125), ("3.05", 305)]
        {
            let read: SpaceAmplification = text.parse().expect(text);
            assert_eq!((read.0, read.to_string()), (percent, text.to_owned()));
        }
        for text in ["1.09", "1.0", "0", "", ".5", "1.", "1.555", "-2", "101", "1,5", "99999999999"]
        {
            let error = text.parse::<SpaceAmplification>().expect_err(text);
            assert!(error.contains("from 1.1 to 100"), "{error}");
        }
    }

    #[test]
    fn file_modes_are_octal() {
        for (text, mode) in [("700", 0o700), ("0770", 0o770), ("0", 0), ("777", 0o777)] {
            assert_eq!(text.parse(), Ok(FileMode(mode)));
        }
        for text in ["", "1000", "8", "rwx", "-1", "+7", "77777777777777777777"] {
            assert!(text.parse::<FileMode>().is_err(), "{text:?}");
        }
        assert_eq!(FileMode(0o70).to_string(), "70");
    }
}
