//! Network cards, their queues and interrupts.

use super::{InterruptLine, Reader, interrupts, parse_number};

const FOLDER: &str = "/sys/class/net";

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkCard {
    /// Its name.
    pub name: String,
    /// Its driver; `None` if no device is behind it, as with a bridge or a bond.
    pub driver: Option<String>,
    /// Whether it is not known to be down.
    pub is_up: bool,
    /// The NUMA node that it is attached to.
    pub node: Option<usize>,
    /// The interfaces that it is built of.
    pub lower: Vec<String>,
    /// How many queues it receives with.
    pub receive_queues: usize,
    /// How many queues it sends with.
    pub send_queues: usize,
    /// Its interrupts.
    pub interrupts: Vec<InterruptLine>,
}

impl NetworkCard {
    /// The interrupts of queues; the others tell of the card itself, and are few.
    pub fn queue_interrupts(&self) -> Vec<&InterruptLine> {
        let named: Vec<&InterruptLine> =
            self.interrupts.iter().filter(|line| is_of_queue(&line.name)).collect();
        if named.is_empty() { self.interrupts.iter().collect() } else { named }
    }

    /// The folder of one of its queues: `rx` or `tx`.
    pub(crate) fn queue(&self, direction: &str, number: usize) -> String {
        format!("{FOLDER}/{}/queues/{direction}-{number}", self.name)
    }
}

/// What drivers call the interrupts of queues: `eth0-TxRx-0` (Intel), `eth0-Tx-Rx-0` (ena),
/// `virtio0-input.0`, `mlx5_comp0@pci:...`, `mana_q0@pci:...`, `eth0-fp-0` (bnx2x), `eth0-rx-0`.
fn is_of_queue(name: &str) -> bool {
    const PARTS: [&str; 12] = [
        "-TxRx-",
        "-Tx-Rx-",
        "-rx-",
        "-tx-",
        "-Rx-",
        "-Tx-",
        "-input.",
        "-output.",
        "mlx5_comp",
        "mlx4-",
        "mana_q",
        "-fp-",
    ];
    let with_end = format!("{name}-");
    PARTS.iter().any(|part| name.contains(part) || with_end.ends_with(part))
}

/// All interfaces.
pub(super) fn read(reader: &mut Reader<'_>, all: &[InterruptLine]) -> Vec<NetworkCard> {
    let names = reader.list(FOLDER);
    let mut cards = Vec::new();
    for name in names.into_iter().filter(|name| name != "lo" && name != "bonding_masters") {
        let folder = format!("{FOLDER}/{name}");
        let device = reader.resolve(&format!("{folder}/device"));
        let driver = device.as_ref().map(|device| {
            let driver = reader.resolve(&format!("{device}/driver"));
            let driver = driver.as_deref().and_then(|path| path.rsplit('/').next());
            driver.unwrap_or("unknown").to_owned()
        });
        let node = reader.word(&format!("{folder}/device/numa_node"));
        let lower = reader.list(&folder);
        let lower = lower.iter().filter_map(|entry| entry.strip_prefix("lower_"));
        let queues = reader.list(&format!("{folder}/queues"));
        let count = |direction| queues.iter().filter(|queue| queue.starts_with(direction)).count();
        let interrupts = device
            .as_ref()
            .map_or(Vec::new(), |device| interrupts::of_device(reader, device, &name, all));
        let card = NetworkCard {
            is_up: reader.word(&format!("{folder}/operstate")).is_none_or(|state| state != "down"),
            driver,
            // -1 stands for a machine without nodes.
            node: node.as_deref().and_then(parse_number),
            lower: lower.map(str::to_owned).collect(),
            receive_queues: count("rx-"),
            send_queues: count("tx-"),
            interrupts,
            name,
        };
        keep_settings(reader, &card);
        cards.push(card);
    }
    cards
}

fn keep_settings(reader: &mut Reader<'_>, card: &NetworkCard) {
    for number in 0..card.receive_queues {
        for name in ["rps_cpus", "rps_flow_cnt"] {
            reader.keep(&format!("{}/{name}", card.queue("rx", number)));
        }
    }
    for number in 0..card.send_queues {
        reader.keep(&format!("{}/xps_cpus", card.queue("tx", number)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_of_queues_are_known_by_their_names() {
        for name in [
            "eth0-TxRx-3",
            "eth0-Tx-Rx-3",
            "virtio1-input.0",
            "virtio1-output.0",
            "eth0-rx-1",
            "mlx5_comp7@pci:0000:01:00.0",
            "mana_q2@pci:7870:00:00.0",
            "virtio3-rx",
        ] {
            assert!(is_of_queue(name), "{name}");
        }
        for name in ["eth0", "ena-mgmnt@pci:0000:00:05.0", "virtio1-config", "mlx5_async0"] {
            assert!(!is_of_queue(name), "{name}");
        }
    }
}
