//! Sets of CPUs in the forms in which people and the kernel write them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The largest CPU number, plus one, that a set holds: what the largest kernels are built for.
pub const CPU_NUMBERS: usize = 8192;
const BITS_PER_GROUP: usize = 32;
const BITS_PER_DIGIT: usize = 4;

/// A set of CPU numbers.
///
/// As text it is a list (`0-3,8`) or, after `0x`, a mask of hexadecimal digits, whose groups of 32
/// bits may be divided by commas (`0x1,0x00000000`).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuMask(BTreeSet<usize>);

impl CpuMask {
    /// The set of these CPUs; numbers beyond [`CPU_NUMBERS`] are left out.
    pub fn of(cpus: impl IntoIterator<Item = usize>) -> Self {
        Self(cpus.into_iter().filter(|cpu| *cpu < CPU_NUMBERS).collect())
    }

    /// The CPUs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the CPU is one of them.
    pub fn contains(&self, cpu: usize) -> bool {
        self.0.contains(&cpu)
    }

    /// The lowest.
    pub fn first(&self) -> Option<usize> {
        self.0.first().copied()
    }

    /// Those that are in both.
    pub fn and(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }

    /// Those that are in one at least.
    pub fn or(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).copied().collect())
    }

    /// Those that are not in the other.
    pub fn without(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).copied().collect())
    }

    /// Reads a list as the kernel writes it: `0-3,8`, or nothing for an empty set.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn from_list(text: &str) -> Result<Self, String> {
        let malformed = || format!("`{text}` is no list of CPUs such as 0-3,8");
        let mut cpus = BTreeSet::new();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first = number(first).ok_or_else(malformed)?;
            let last = number(last).ok_or_else(malformed)?;
            if first > last {
                return Err(malformed());
            }
            if last >= CPU_NUMBERS {
                return Err(format!("CPU {last} is beyond {}", CPU_NUMBERS - 1));
            }
            cpus.extend(first..=last);
        }
        Ok(Self(cpus))
    }

    /// Reads hexadecimal digits as the kernel writes them: groups of 32 bits, the highest first.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn from_hexadecimal(text: &str) -> Result<Self, String> {
        let malformed = || format!("`{text}` is no mask of CPUs such as 0xff or 0x1,0x00000000");
        let groups: Vec<&str> = text.trim().split(',').collect();
        let mut cpus = BTreeSet::new();
        for (index, group) in groups.iter().rev().enumerate() {
            let digits = group.strip_prefix("0x").unwrap_or(group);
            let is_hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let has_room = groups.len() == 1 || digits.len() * BITS_PER_DIGIT <= BITS_PER_GROUP;
            if digits.is_empty() || !is_hexadecimal || !has_room {
                return Err(malformed());
            }
            for (place, digit) in digits.chars().rev().enumerate() {
                let bits = digit.to_digit(16).ok_or_else(malformed)?;
                let base = index * BITS_PER_GROUP + place * BITS_PER_DIGIT;
                let set = (0..BITS_PER_DIGIT).filter(|bit| bits & (1 << bit) != 0);
                cpus.extend(set.map(|bit| base + bit));
            }
        }
        match cpus.last() {
            Some(last) if *last >= CPU_NUMBERS => {
                Err(format!("CPU {last} is beyond {}", CPU_NUMBERS - 1))
            }
            _ => Ok(Self(cpus)),
        }
    }

    /// The set in the kernel's hexadecimal form, with at least `digits` digits.
    pub fn hexadecimal(&self, digits: usize) -> String {
        let needed = self.0.last().map_or(1, |last| last / BITS_PER_DIGIT + 1);
        let digits = needed.max(digits.min(CPU_NUMBERS / BITS_PER_DIGIT));
        let mut text = String::with_capacity(digits + digits / 8);
        for place in (0..digits).rev() {
            let base = place * BITS_PER_DIGIT;
            let set = (0..BITS_PER_DIGIT).filter(|bit| self.contains(base + bit));
            let value = set.fold(0, |value, bit| value | (1 << bit));
            text.extend(char::from_digit(value, 16));
            if place > 0 && base.is_multiple_of(BITS_PER_GROUP) {
                text.push(',');
            }
        }
        text
    }

    /// The set as tools of hwloc take it: each group of 32 bits after `0x`.
    pub fn prefixed(&self) -> String {
        let groups: Vec<String> =
            self.hexadecimal(1).split(',').map(|group| format!("0x{group}")).collect();
        groups.join(",")
    }
}

fn number(text: &str) -> Option<usize> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

impl FromStr for CpuMask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("0x") {
            return Self::from_hexadecimal(text);
        }
        let has_gap = text.trim().split(',').any(str::is_empty);
        if has_gap && !text.trim().is_empty() {
            return Err(format!("`{text}` is no list of CPUs such as 0-3,8, nor a mask after 0x"));
        }
        Self::from_list(text)
    }
}

impl fmt::Display for CpuMask {
    /// The list of the kernel: `0-3,8`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for cpu in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == cpu => *last = cpu,
                _ => ranges.push((cpu, cpu)),
            }
        }
        for (index, (first, last)) in ranges.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            if first == last {
                write!(formatter, "{comma}{first}")?;
            } else {
                write!(formatter, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for CpuMask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CpuMask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms_are_read() {
        for (text, list) in [
            ("0-3,8", "0-3,8"),
            ("5", "5"),
            ("", ""),
            ("0xff", "0-7"),
            ("0x0", ""),
            ("0x1,0x00000000", "32"),
            ("0x80000000,00000001", "0,63"),
            ("0x100000000", "32"),
        ] {
            let mask: CpuMask = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(mask.to_string(), list, "{text}");
        }
        for text in
            ["a", "3-1", "1-", "-1", "1,,2", ",", "0x", "0xg", "0-9000", "0x1,123456789", "+1"]
        {
            let error = text.parse::<CpuMask>().expect_err(text);
            assert!(error.contains("CPU"), "{text}: {error}");
        }
        let beyond = format!("0x1{}", "0".repeat(CPU_NUMBERS / 4));
        assert!(beyond.parse::<CpuMask>().expect_err("too large").contains("beyond"));
    }

    #[test]
    fn the_kernels_width_is_kept() {
        let mask = CpuMask::of([0, 33]);
        assert_eq!(mask.hexadecimal(1), "2,00000001");
        assert_eq!(mask.hexadecimal(16), "00000002,00000001");
        assert_eq!(mask.prefixed(), "0x2,0x00000001");
        assert_eq!(CpuMask::default().hexadecimal(2), "00");
        assert_eq!(CpuMask::default().prefixed(), "0x0");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(cpus in prop::collection::btree_set(0..300_usize, 0..40)) {
            let mask = CpuMask::of(cpus);
            prop_assert_eq!(CpuMask::from_list(&mask.to_string()), Ok(mask.clone()));
            prop_assert_eq!(CpuMask::from_hexadecimal(&mask.hexadecimal(3)), Ok(mask.clone()));
            prop_assert_eq!(mask.prefixed().parse::<CpuMask>(), Ok(mask));
        }
    }
}
