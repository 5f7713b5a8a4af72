//! What the disks of known machines can do, to find figures that cannot be true.
//!
//! The figures are of one disk of the instance, or of all of them as an array where the source has
//! measured them so, rounded to three digits. They are those that ScyllaDB has measured with iotune
//! and ships: `common/aws_io_params.yaml` of
//! <https://github.com/scylladb/scylla-machine-image>, commit 02f82bad29bf.

use super::DiskProperties;

/// A disk that somebody has measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownDisk {
    /// The instance type; a family with `*` for its larger sizes.
    pub instance: &'static str,
    /// Reads a second, in hundreds.
    pub read_hundreds: u32,
    /// Megabytes (10^6) read a second.
    pub read_megabytes: u32,
    /// Writes a second, in hundreds.
    pub write_hundreds: u32,
    /// Megabytes (10^6) written a second.
    pub write_megabytes: u32,
}

const fn known(
    instance: &'static str,
    (read_hundreds, read_megabytes): (u32, u32),
    (write_hundreds, write_megabytes): (u32, u32),
) -> KnownDisk {
    KnownDisk { instance, read_hundreds, read_megabytes, write_hundreds, write_megabytes }
}

const KNOWN: [KnownDisk; 23] = [
    known("i3.large", (1_110, 654), (368, 215)),
    known("i3.xlarge", (2_010, 1_190), (532, 424)),
    known("i3.*", (4_110, 2_020), (1_820, 809)),
    known("i3en.large", (433, 330), (332, 166)),
    known("i3en.xlarge", (845, 667), (670, 333)),
    known("i3en.2xlarge", (845, 667), (670, 333)),
    known("i3en.*", (2_570, 2_040), (1_740, 1_020)),
    known("i4i.large", (550, 378), (305, 280)),
    known("i4i.xlarge", (1_100, 764), (610, 562)),
    known("i4i.2xlarge", (2_190, 1_540), (1_210, 1_130)),
    known("i4i.4xlarge", (3_850, 3_090), (2_410, 2_290)),
    known("i4i.8xlarge", (3_850, 3_120), (2_400, 2_290)),
    known("i4i.16xlarge", (3_740, 3_090), (2_400, 2_290)),
    known("i4i.*", (3_740, 3_100), (2_390, 2_300)),
    known("i7i.large", (823, 606), (457, 419)),
    known("i7i.xlarge", (1_640, 1_220), (912, 839)),
    known("i7i.2xlarge", (3_280, 2_440), (1_810, 1_690)),
    known("i7i.4xlarge", (6_320, 4_770), (3_630, 3_410)),
    known("i7i.8xlarge", (11_100, 9_430), (7_230, 6_820)),
    known("i7i.12xlarge", (16_000, 14_400), (10_800, 10_200)),
    known("i7i.16xlarge", (20_600, 18_700), (14_400, 13_600)),
    known("i7i.24xlarge", (29_800, 28_100), (21_600, 20_000)),
    known("i7i.*", (30_000, 28_100), (21_600, 20_000)),
];

/// Figures may be so many percent of the known ones before they are doubted: less is a slow disk,
/// or a busy one; more is a cache, or several disks.
const LEAST_PERCENT: u64 = 50;
const MOST_PERCENT: u64 = 150;
/// Disks that an instance has at most, which an array may add up.
const DISKS_MAX: u64 = 8;

/// What is known of the disks of an instance type, such as `i4i.4xlarge`.
pub fn known_disk(instance: &str) -> Option<&'static KnownDisk> {
    let family = instance.split_once('.').map(|(family, _)| format!("{family}.*"));
    let exact = KNOWN.iter().find(|disk| disk.instance == instance);
    exact.or_else(|| KNOWN.iter().find(|disk| Some(disk.instance) == family.as_deref()))
}

/// What cannot be true of figures, or is hard to believe: each a sentence.
pub fn doubts(disk: &DiskProperties, instance: Option<&str>) -> Vec<String> {
    let mut doubts = Vec::new();
    let directions = [
        ("read", disk.read_iops, disk.read_bandwidth),
        ("write", disk.write_iops, disk.write_bandwidth),
    ];
    for (name, iops, bandwidth) in directions {
        if iops.saturating_mul(512) > bandwidth.saturating_mul(2) {
            doubts.push(format!(
                "{name}_iops {iops} of the smallest length are more than {name}_bandwidth \
                 {bandwidth}"
            ));
        }
    }
    let Some(known) = instance.and_then(known_disk) else { return doubts };
    let scaled = |value: u32, unit: u64| u64::from(value) * unit;
    for (name, found, expected) in [
        ("read_iops", disk.read_iops, scaled(known.read_hundreds, 100)),
        ("read_bandwidth", disk.read_bandwidth, scaled(known.read_megabytes, 1_000_000)),
        ("write_iops", disk.write_iops, scaled(known.write_hundreds, 100)),
        ("write_bandwidth", disk.write_bandwidth, scaled(known.write_megabytes, 1_000_000)),
    ] {
        let least = expected * LEAST_PERCENT / 100;
        let most = expected * DISKS_MAX * MOST_PERCENT / 100;
        if !(least..=most).contains(&found) {
            let instance = known.instance;
            doubts.push(format!(
                "{name} {found} is far from {expected}, which one disk of {instance} has"
            ));
        }
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(read_iops: u64, read_bandwidth: u64) -> DiskProperties {
        DiskProperties {
            read_iops,
            read_bandwidth,
            write_iops: 240_000,
            write_bandwidth: 2_290_000_000,
            ..DiskProperties::default()
        }
    }

    #[test]
    fn sizes_and_families_are_known() {
        assert_eq!(known_disk("i4i.4xlarge").map(|disk| disk.read_hundreds), Some(3_850));
        assert_eq!(known_disk("i4i.metal").map(|disk| disk.instance), Some("i4i.*"));
        assert_eq!(known_disk("i3.16xlarge").map(|disk| disk.instance), Some("i3.*"));
        assert_eq!(known_disk("i3"), None);
        assert_eq!(known_disk("m5d.large"), None);
    }

    #[test]
    fn figures_that_cannot_be_true_are_doubted() {
        let fine = disk(385_000, 3_090_000_000);
        assert_eq!(doubts(&fine, Some("i4i.4xlarge")), Vec::<String>::new());
        assert_eq!(doubts(&fine, None), Vec::<String>::new());
        let slow = doubts(&disk(100_000, 3_090_000_000), Some("i4i.4xlarge"));
        assert!(slow.len() == 1 && slow[0].contains("read_iops 100000"), "{slow:?}");
        let cached = doubts(&disk(20_000_000, 90_000_000_000), Some("i4i.4xlarge"));
        assert_eq!(cached.len(), 2, "{cached:?}");
        let impossible = doubts(&disk(1_000_000, 1_000_000), None);
        assert!(
            impossible.len() == 1 && impossible[0].contains("read_bandwidth"),
            "{impossible:?}"
        );
        assert_eq!(doubts(&disk(10, 100_000), Some("m5d.large")), Vec::<String>::new());
    }
}
