//! Interrupts: which there are, and which belong to a device.

use super::{MachineCpu, Reader, parse_number};

/// An interrupt that a driver has asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterruptLine {
    /// Its number.
    pub number: u32,
    /// What the driver calls it, such as `eth0-Tx-Rx-0` or `nvme0q1`.
    pub name: String,
}

/// The setting that says which CPUs take an interrupt.
pub(crate) fn affinity_path(number: u32) -> String {
    format!("/proc/irq/{number}/smp_affinity_list")
}

/// The interrupts in `/proc/interrupts`; their CPUs are kept as settings.
pub(super) fn read(reader: &mut Reader<'_>, cpus: &[MachineCpu]) -> Vec<InterruptLine> {
    let text = reader.read("/proc/interrupts").unwrap_or_default();
    let lines = parse(&text, cpus.len());
    for line in &lines {
        reader.keep(&affinity_path(line.number));
    }
    lines
}

/// Reads lines such as ` 24:   10   0   PCI-MSI 512-edge      nvme0q0`. The counts may be fewer
/// than there are CPUs, and the words behind them differ by architecture: the last is the name.
fn parse(text: &str, cpus: usize) -> Vec<InterruptLine> {
    let columns = text.lines().next().unwrap_or_default();
    let columns = columns.split_whitespace().filter(|word| word.starts_with("CPU")).count();
    let columns = if columns == 0 { cpus } else { columns };
    let mut lines = Vec::new();
    for line in text.lines().skip(1) {
        let Some((number, rest)) = line.split_once(':') else { continue };
        let Some(number) = parse_number::<u32>(number) else { continue };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let counts =
            words.iter().take(columns).take_while(|word| parse_number::<u64>(word).is_some());
        let described = &words[counts.count()..];
        // The chip and its line come first; an interrupt that nobody asked for has no more.
        if described.len() >= 3 {
            let name = described[described.len() - 1].to_owned();
            lines.push(InterruptLine { number, name });
        }
    }
    lines
}

/// The interrupts of a device, which `path` leads to without links.
///
/// The device that the kernel gave them to is the nearest above that has a list of them. A virtio
/// device shares that with none, but its interrupts have its name; other names are not needed.
/// Where there is no list, an interrupt belongs to the device if its name begins with the
/// device's, or with `fallback`.
pub(super) fn of_device(
    reader: &mut Reader<'_>,
    path: &str,
    fallback: &str,
    all: &[InterruptLine],
) -> Vec<InterruptLine> {
    let parts: Vec<&str> = path.split('/').collect();
    let is_virtio =
        |part: &&&str| part.strip_prefix("virtio").and_then(parse_number::<u32>).is_some();
    let virtio = parts.iter().find(is_virtio).copied();
    let named = |name: &str| -> Vec<InterruptLine> {
        all.iter().filter(|line| belongs_to(&line.name, name)).cloned().collect()
    };
    if let Some(name) = virtio {
        return named(name);
    }
    for length in (4..=parts.len()).rev() {
        let numbers = reader.list(&format!("{}/msi_irqs", parts[..length].join("/")));
        let numbers: Vec<u32> = numbers.iter().filter_map(|name| parse_number(name)).collect();
        let lines: Vec<InterruptLine> =
            all.iter().filter(|line| numbers.contains(&line.number)).cloned().collect();
        if !lines.is_empty() {
            return lines;
        }
    }
    named(fallback)
}

/// Whether the name is the device's, alone or with something behind that starts no longer name.
fn belongs_to(name: &str, device: &str) -> bool {
    let rest = name.strip_prefix(device);
    rest.is_some_and(|rest| !rest.starts_with(|letter: char| letter.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str, cpus: usize) -> Vec<(u32, String)> {
        parse(text, cpus).into_iter().map(|line| (line.number, line.name)).collect()
    }

    #[test]
    fn lines_of_several_machines_are_read() {
        let text = "           CPU0       CPU1\n  \
            1:        9          0   IO-APIC   1-edge      i8042\n \
            24:   12345          7   PCI-MSI 524288-edge      nvme0q0\n \
            25:       0          0   xen-pirq    -msi-x     eth0-TxRx-0\n \
            43:       1          0   PCI-MSIX-0000:00:04.0   3-edge      virtio3-input.0\n \
            50:       0          0   ITS-MSI 540672 Edge      ena-mgmnt@pci:0000:00:05.0\n \
            60:       0          0   PCI-MSI 1-edge\n\
            NMI:          0          0   Non-maskable interrupts\n\
            ERR:          0\n";
        let names = ["i8042", "nvme0q0", "eth0-TxRx-0", "virtio3-input.0"];
        let mut expected: Vec<(u32, String)> =
            [1, 24, 25, 43].into_iter().zip(names.map(str::to_owned)).collect();
        expected.push((50, "ena-mgmnt@pci:0000:00:05.0".to_owned()));
        assert_eq!(named(text, 2), expected);
        for nonsense in ["", "CPU0\n", "x\n1", "CPU0\n1: \n99999999999: 1 a b c\n: 1 a b c\n"] {
            assert_eq!(named(nonsense, 1), [], "{nonsense:?}");
        }
    }

    #[test]
    fn a_name_is_not_taken_for_a_longer_one() {
        assert!(belongs_to("eth1", "eth1") && belongs_to("eth1-TxRx-0", "eth1"));
        assert!(belongs_to("virtio1-req.0", "virtio1") && belongs_to("nvme0q12", "nvme0"));
        assert!(!belongs_to("eth10-TxRx-0", "eth1") && !belongs_to("virtio10-config", "virtio1"));
    }
}
