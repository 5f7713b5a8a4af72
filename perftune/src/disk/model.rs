//! The figures as the model by which the node's disk scheduler goes.

use larder_runtime::device_model::DeviceModel;

use super::DiskProperties;

/// What a disk does together of reads and writes, in thousandths: one at the cost of the other, and
/// both as if there were no other.
const ONE_AT_THE_COST_OF_THE_OTHER: u64 = 1000;
const BOTH_AT_ONCE: u64 = 2000;

impl DiskProperties {
    /// The model of the disk. `latency_goal_us` counts before what the figures say.
    pub fn model(&self, latency_goal_us: Option<u64>) -> DeviceModel {
        let goal_us = latency_goal_us.or(self.latency_goal_us);
        let usual = DeviceModel::default().latency_goal;
        let is_duplex = self.duplex == Some(true);
        let unmeasured = if is_duplex { BOTH_AT_ONCE } else { ONE_AT_THE_COST_OF_THE_OTHER };
        DeviceModel {
            read_iops: self.read_iops,
            write_iops: self.write_iops,
            read_bandwidth: self.read_bandwidth,
            write_bandwidth: self.write_bandwidth,
            latency_goal: goal_us.map_or(usual, |goal| goal.saturating_mul(1000)),
            depth_max: self.read_saturation_depth.max(self.write_saturation_depth),
            mixed_thousandths: self.mixed_thousandths.unwrap_or(unmeasured),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_measured_has_a_default_and_an_option_wins() {
        let disk = DiskProperties {
            read_iops: 100_000,
            read_bandwidth: 600_000_000,
            write_iops: 40_000,
            write_bandwidth: 200_000_000,
            ..DiskProperties::default()
        };
        let model = disk.model(None);
        assert_eq!((model.read_iops, model.write_iops), (100_000, 40_000));
        assert_eq!((model.read_bandwidth, model.write_bandwidth), (600_000_000, 200_000_000));
        assert_eq!((model.latency_goal, model.depth_max), (750_000, None));
        assert_eq!(model.mixed_thousandths, 1000);
        let duplex = DiskProperties { duplex: Some(true), ..disk.clone() };
        assert_eq!(duplex.model(None).mixed_thousandths, 2000);
        let measured = DiskProperties {
            latency_goal_us: Some(2000),
            read_saturation_depth: Some(128),
            write_saturation_depth: Some(32),
            mixed_thousandths: Some(900),
            duplex: Some(true),
            ..disk
        };
        let model = measured.model(None);
        assert_eq!((model.latency_goal, model.depth_max), (2_000_000, Some(128)));
        assert_eq!(model.mixed_thousandths, 900);
        assert_eq!(measured.model(Some(500)).latency_goal, 500_000);
    }
}
