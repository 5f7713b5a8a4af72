//! What a machine is.

use super::table::aligned;
use crate::cpu_mask::CpuMask;
use crate::machine::{BlockDevice, CLOCK_SOURCE, InterruptLine, Machine, NetworkCard};
use crate::plan::{TunePlan, written_form};

/// A table of what the machine is, and of how the plan divides it.
pub fn machine(machine: &Machine, plan: &TunePlan) -> String {
    let mut rows = vec![
        row("CPUs", &format!("{} ({})", machine.all_cpus(), machine.cpus.len())),
        row("cores", &format!("{}, {} threads each", machine.cores(), threads(machine))),
    ];
    for node in machine.nodes() {
        let cpus = machine.cpus.iter().filter(|cpu| cpu.node == node).map(|cpu| cpu.number);
        rows.push(row(&format!("NUMA node {node}"), &format!("CPUs {}", CpuMask::of(cpus))));
    }
    rows.push(row("clock", setting(machine, CLOCK_SOURCE)));
    let huge_pages = "/sys/kernel/mm/transparent_hugepage/enabled";
    rows.push(row("huge pages", setting(machine, huge_pages)));
    rows.push(row("governors", &governors(machine)));
    rows.extend(machine.cards.iter().map(card));
    rows.extend(machine.devices.iter().map(|device| disk(machine, device)));
    rows.push(row("mode", plan.mode.name()));
    rows.push(row("requests", &format!("CPUs {}", plan.compute)));
    rows.push(row("interrupts", &format!("CPUs {}", plan.interrupts)));
    let differing = plan.settings.iter().filter(|setting| setting.is_wrong()).count();
    let total = plan.settings.len();
    rows.push(row("settings", &format!("{differing} of {total} differ from the plan (--check)")));
    rows.extend(plan.notes.iter().map(|note| row("note", note)));
    aligned(&rows)
}

fn row(name: &str, value: &str) -> Vec<String> {
    vec![name.to_owned(), value.to_owned()]
}

fn setting<'a>(machine: &'a Machine, path: &str) -> &'a str {
    machine.content(path).map_or("unknown", written_form)
}

/// How many threads a core has: a number, or from which to which.
fn threads(machine: &Machine) -> String {
    let counts = machine
        .cpus
        .iter()
        .map(|cpu| machine.cpus.iter().filter(|other| other.core == cpu.core).count());
    let counts: Vec<usize> = counts.collect();
    match (counts.iter().min(), counts.iter().max()) {
        (Some(least), Some(most)) if least != most => format!("{least} to {most}"),
        (Some(all), _) => all.to_string(),
        _ => "no".to_owned(),
    }
}

fn governors(machine: &Machine) -> String {
    let is_governor = |path: &str| path.ends_with("/scaling_governor");
    let named = machine.contents.iter().filter(|(path, _)| is_governor(path));
    let mut names: Vec<&str> = named.map(|(_, text)| text.trim()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() { "none that can be chosen".to_owned() } else { names.join(", ") }
}

fn card(card: &NetworkCard) -> Vec<String> {
    let state = if card.is_up { "up" } else { "down" };
    let driver = match &card.driver {
        Some(driver) => format!("driver {driver}"),
        None if card.lower.is_empty() => "no device".to_owned(),
        None => format!("made of {}", card.lower.join(", ")),
    };
    let node = card.node.map_or(String::new(), |node| format!(", node {node}"));
    let queues = format!("{} receive and {} send queues", card.receive_queues, card.send_queues);
    let interrupts = numbers(&card.interrupts);
    row(
        &format!("network {}", card.name),
        &format!("{state}, {driver}{node}, {queues}{interrupts}"),
    )
}

fn disk(machine: &Machine, device: &BlockDevice) -> Vec<String> {
    let name = format!("disk {}", device.name);
    if !device.lower.is_empty() {
        let mapped = device.mapped_name.iter().map(|name| format!("{name}, ")).collect::<String>();
        return row(&name, &format!("{mapped}on {}", device.lower.join(", ")));
    }
    let scheduler = setting(machine, &device.queue_setting("scheduler"));
    let queues = device.queue_cpus.len();
    let interrupts = numbers(&device.interrupts);
    row(&name, &format!("scheduler {scheduler}, {queues} queues{interrupts}"))
}

fn numbers(lines: &[InterruptLine]) -> String {
    // The numbers of a device's interrupts mostly follow each other, as those of CPUs do.
    let numbers = CpuMask::of(lines.iter().map(|line| line.number as usize));
    if numbers.is_empty() {
        ", no known interrupts".to_owned()
    } else {
        format!(", IRQs {numbers}")
    }
}
