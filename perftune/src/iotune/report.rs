//! What was measured, for people and for programs.

use serde::Serialize;

use crate::disk::DiskProperties;
use crate::measure::{LoadCurve, Measured};

/// All that is known at the end of a measurement.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) directory: String,
    pub(super) file_system: String,
    /// The instance type of a virtual machine, or what the machine's maker calls it.
    pub(super) machine: Option<String>,
    pub(super) milliseconds: u32,
    pub(super) file_bytes: u64,
    pub(super) disk: DiskProperties,
    /// By how many percent reads, their bandwidth, writes and theirs varied.
    pub(super) spread_percent: [f64; 4],
    pub(super) curves: Vec<LoadCurve>,
    pub(super) notes: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Report {
    /// Takes over what was found out.
    pub(super) fn take(&mut self, measured: Measured) {
        let mountpoints = std::mem::take(&mut self.disk.mountpoints);
        self.disk = DiskProperties { mountpoints, ..measured.properties };
        self.spread_percent = measured.spread_percent;
        self.curves = measured.curves;
        self.notes = measured.notes;
    }

    pub(super) fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a report is plain data");
        text.push('\n');
        text
    }

    /// The figures, each with how sure it is.
    pub(super) fn to_text(&self) -> String {
        let disk = &self.disk;
        let [reads, read_bytes, writes, write_bytes] = self.spread_percent;
        let depth = |depth: Option<u64>| depth.unwrap_or(1);
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let length = |length: Option<u64>| length.unwrap_or(0) >> 10;
        let mut text = format!(
            "random reads      {:>10} a second, {} at a time (varied by {reads:.1} %)\n\
             random writes     {:>10} a second, {} at a time (varied by {writes:.1} %)\n\
             sequential reads  {:>10.1} MB a second, from {} KiB on (varied by {read_bytes:.1} %)\n\
             sequential writes {:>10.1} MB a second, from {} KiB on (varied by \
             {write_bytes:.1} %)\n\
             written at once   {:>10} bytes\n\
             reads and writes mixed: {:.2} of what they are alone, added up\n",
            disk.read_iops,
            depth(disk.read_saturation_depth),
            disk.write_iops,
            depth(disk.write_saturation_depth),
            megabytes(disk.read_bandwidth),
            length(disk.read_saturation_length),
            megabytes(disk.write_bandwidth),
            length(disk.write_saturation_length),
            disk.physical_block_size.unwrap_or(0),
            disk.mixed_thousandths.unwrap_or(0) as f64 / 1000.0,
        );
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        text
    }
}
