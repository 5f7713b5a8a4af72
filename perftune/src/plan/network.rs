//! Network cards: interrupts, and which CPUs handle what they bring.

use super::cpus::{Division, neighbour_order, spread_order};
use super::setting::{SettingArea, SettingKind};
use super::{Draft, interrupts};
use crate::cpu_mask::CpuMask;
use crate::error::TuneError;
use crate::machine::{InterruptLine, Machine, NetworkCard};
use crate::options::TuneOptions;

/// Flows that are remembered with the CPU that reads them.
const FLOWS: usize = 32768;
/// Connections, begun and whole, that may wait to be accepted; packets that may wait for a CPU.
const BACKLOG: &str = "4096";

pub(super) fn plan(
    draft: &mut Draft<'_>,
    options: &TuneOptions,
    division: &Division,
) -> Result<(), TuneError> {
    let machine = draft.machine;
    let cards = chosen(machine, &options.nic)?;
    if cards.is_empty() {
        draft.note("there is no network card with a device that is up: none is tuned".to_owned());
    }
    for card in &cards {
        bind_interrupts(draft, card, division);
        steer(draft, card, division);
    }
    let flows = (SettingKind::AtLeast, FLOWS.to_string());
    let area = SettingArea::Network;
    if cards.iter().any(|card| card.receive_queues > 0) {
        let path = "/proc/sys/net/core/rps_sock_flow_entries";
        let reason = "packets go to the CPU that reads their connection (RFS)";
        draft.set(area, path, flows, reason);
    }
    for (path, reason) in [
        ("/proc/sys/net/core/somaxconn", "connections that wait to be accepted"),
        ("/proc/sys/net/ipv4/tcp_max_syn_backlog", "connections that are being made"),
        ("/proc/sys/net/core/netdev_max_backlog", "packets that wait for a CPU after RPS"),
    ] {
        draft.set(area, path, (SettingKind::AtLeast, BACKLOG.to_owned()), reason);
    }
    Ok(())
}

/// The cards with devices that the names stand for; without names, those that are up.
fn chosen<'a>(machine: &'a Machine, names: &[String]) -> Result<Vec<&'a NetworkCard>, TuneError> {
    if names.is_empty() {
        let is_used = |card: &&NetworkCard| card.driver.is_some() && card.is_up;
        return Ok(machine.cards.iter().filter(is_used).collect());
    }
    let find = |name: &str| machine.cards.iter().find(|card| card.name == name);
    let (mut seen, mut cards) = (Vec::new(), Vec::new());
    let mut open: Vec<String> = names.iter().rev().cloned().collect();
    while let Some(name) = open.pop() {
        if seen.contains(&name) {
            continue;
        }
        let Some(card) = find(&name) else {
            let known: Vec<&str> = machine.cards.iter().map(|card| card.name.as_str()).collect();
            return Err(TuneError::UnknownCard { name, known: known.join(", ") });
        };
        if card.driver.is_some() {
            cards.push(card);
        } else {
            // A bond or a VLAN is tuned by what it is built of.
            open.extend(card.lower.iter().rev().filter(|lower| find(lower).is_some()).cloned());
        }
        seen.push(name);
    }
    Ok(cards)
}

fn bind_interrupts(draft: &mut Draft<'_>, card: &NetworkCard, division: &Division) {
    let order = spread_order(draft.machine, &division.interrupts);
    let queues = card.queue_interrupts();
    let others: Vec<&InterruptLine> =
        card.interrupts.iter().filter(|line| !queues.contains(line)).collect();
    let shares = division.compute == division.interrupts;
    let reason = if shares {
        "network interrupts are spread over all CPUs"
    } else {
        "network interrupts stay away from the CPUs that serve requests"
    };
    interrupts::spread(draft, &queues, &order, reason);
    interrupts::spread(draft, &others, &order, reason);
    let wanted = division.interrupts.count();
    if queues.is_empty() {
        draft.note(format!("{}: its interrupts are not known, and stay where they are", card.name));
    } else if !shares && card.receive_queues > wanted {
        draft.note(format!(
            "{}: {} receive queues for {wanted} CPUs that take interrupts; fewer cost less: \
             `ethtool -L {} combined {wanted}` (not done, nor undone, by this program)",
            card.name, card.receive_queues, card.name
        ));
    }
}

/// Has packets handled by the CPUs that serve requests.
fn steer(draft: &mut Draft<'_>, card: &NetworkCard, division: &Division) {
    let area = SettingArea::Network;
    let compute = (SettingKind::Hexadecimal, division.compute.hexadecimal(1));
    for number in 0..card.receive_queues {
        let queue = card.queue("rx", number);
        let reason = "packets are handled by the CPUs that serve requests (RPS)";
        draft.set(area, &format!("{queue}/rps_cpus"), compute.clone(), reason);
        // The kernel rounds up to a power of two, so that is what is asked for.
        let flows = 1 << (FLOWS / card.receive_queues).max(1).ilog2();
        let flows: usize = flows;
        let reason = "this queue's part of the flows that are remembered (RFS)";
        let value = (SettingKind::Word, flows.to_string());
        draft.set(area, &format!("{queue}/rps_flow_cnt"), value, reason);
    }
    let order = neighbour_order(draft.machine, &division.all());
    for number in 0..card.send_queues {
        let cpus = part(&order, number, card.send_queues);
        let value = (SettingKind::Hexadecimal, CpuMask::of(cpus).hexadecimal(1));
        let reason = "these CPUs send with this queue, and with no other (XPS)";
        let path = format!("{}/xps_cpus", card.queue("tx", number));
        draft.set(area, &path, value, reason);
    }
}

/// The CPUs of one of `queues`: neighbours, or one that several queues have.
fn part(order: &[usize], queue: usize, queues: usize) -> Vec<usize> {
    if queues >= order.len() {
        return vec![order[queue % order.len()]];
    }
    let mine = |index: &usize| index * queues / order.len() == queue;
    (0..order.len()).filter(mine).map(|index| order[index]).collect()
}
