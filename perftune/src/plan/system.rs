//! The machine as a whole: clock, memory, frequency of the CPUs, limits.

use super::Draft;
use super::setting::{SettingArea, SettingKind, written_form};
use crate::machine::{CLOCK_SOURCE, CLOCK_SOURCES, LIMITS_FILE, UNIT_LIMITS_FILE};

/// Clocks that are read without a system call, the best first.
const CLOCKS: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];
/// Descriptors of a process: as many as the kernel allows unless somebody has said otherwise.
const DESCRIPTORS: u64 = 1 << 20;
/// How many it allows.
const DESCRIPTORS_ALLOWED: &str = "/proc/sys/fs/nr_open";
/// Requests of the older interface for asynchronous I/O, which tools beside the node use.
const AIO_REQUESTS: &str = "1048576";

pub(super) fn plan(draft: &mut Draft<'_>) {
    set_clock(draft);
    set_memory(draft);
    set_governors(draft);
    let value = (SettingKind::AtLeast, AIO_REQUESTS.to_owned());
    let reason = "requests that fio and its like may have open";
    draft.set(SettingArea::System, "/proc/sys/fs/aio-max-nr", value, reason);
    set_limits(draft);
}

fn set_clock(draft: &mut Draft<'_>) {
    let machine = draft.machine;
    let current = machine.content(CLOCK_SOURCE).unwrap_or_default().trim();
    let offered = machine.content(CLOCK_SOURCES).unwrap_or_default();
    let offers = |name: &&str| offered.split_whitespace().any(|word| word == *name);
    let best = CLOCKS.into_iter().find(|name| *name == current);
    if let Some(best) = best.or_else(|| CLOCKS.into_iter().find(offers)) {
        let reason = "reading this clock takes no system call";
        let value = (SettingKind::Word, best.to_owned());
        draft.set(SettingArea::System, CLOCK_SOURCE, value, reason);
    } else if !current.is_empty() {
        draft.note(format!(
            "the clock source {current} takes a system call each time, and the kernel offers no \
             better one ({})",
            offered.trim()
        ));
    }
}

fn set_memory(draft: &mut Draft<'_>) {
    let huge_pages = "/sys/kernel/mm/transparent_hugepage";
    let word = |value: &str| (SettingKind::Word, value.to_owned());
    let reason = "huge pages for memory that asks for them, as the value cache does";
    draft.set(SettingArea::System, &format!("{huge_pages}/enabled"), word("madvise"), reason);
    let defrag = format!("{huge_pages}/defrag");
    let current = draft.machine.content(&defrag).map_or("", written_form);
    let wanted = if current == "always" { "madvise" } else { current };
    let reason = "who does not ask for huge pages does not wait for them";
    draft.set(SettingArea::System, &defrag, word(wanted), reason);
    let reason = "the node's memory is bounded; swapped out, it would stall a whole core";
    draft.set(SettingArea::System, "/proc/sys/vm/swappiness", word("1"), reason);
}

fn set_governors(draft: &mut Draft<'_>) {
    let machine = draft.machine;
    let governors: Vec<&String> =
        machine.contents.keys().filter(|path| path.ends_with("/scaling_governor")).collect();
    for path in governors {
        let offered = machine.content(&path.replace("_governor", "_available_governors"));
        let offers = offered.is_none_or(|all| all.split_whitespace().any(|it| it == "performance"));
        if offers {
            let reason = "a core that slept does not first have to become fast";
            let value = (SettingKind::Word, "performance".to_owned());
            draft.set(SettingArea::System, path, value, reason);
        } else {
            draft.note(format!("{path}: the kernel does not offer `performance`"));
        }
    }
}

/// How many descriptors limits may allow. Who is to have more than the kernel allows cannot log in:
/// the limit is refused, and the session with it. A kernel that allows less was told so, and will
/// be with its next start, so it is not told otherwise until then.
fn descriptors(draft: &mut Draft<'_>) -> Option<u64> {
    let allowed = draft.machine.content(DESCRIPTORS_ALLOWED);
    let Some(allowed) = allowed.and_then(|text| text.trim().parse::<u64>().ok()) else {
        draft.note(format!(
            "{DESCRIPTORS_ALLOWED} does not say how many descriptors the kernel allows, so their \
             limit is left as it is"
        ));
        return None;
    };
    if allowed < DESCRIPTORS {
        draft.note(format!(
            "fs.nr_open is {allowed}, so no limit of descriptors is higher: a session that is to \
             have more is refused. For more set fs.nr_open = {DESCRIPTORS} in a file of \
             /etc/sysctl.d, and apply again"
        ));
    }
    Some(allowed.min(DESCRIPTORS))
}

fn set_limits(draft: &mut Draft<'_>) {
    let machine = draft.machine;
    let has_limits = machine.content("/etc/security/limits.conf").is_some();
    let has_units = machine.content("/proc/1/comm").is_some_and(|name| name.trim() == "systemd");
    if !has_limits && !has_units {
        return;
    }
    let descriptors = descriptors(draft);
    if has_limits {
        let mut text = "# For `larder serve` from a session of root or of the group larder: \
                        registered buffers, files.\n"
            .to_owned();
        for who in ["@larder", "root"] {
            text.push_str(&format!("{who} - memlock unlimited\n"));
            let line = descriptors.map(|number| format!("{who} - nofile {number}\n"));
            text.extend(line);
        }
        let reason = "sessions of root and of the group larder may lock memory for buffers, and \
                      open enough files";
        draft.file(SettingArea::Limits, LIMITS_FILE, text, reason);
    }
    if has_units {
        let mut text = "[Service]\nLimitMEMLOCK=infinity\n".to_owned();
        text.extend(descriptors.map(|number| format!("LimitNOFILE={number}\n")));
        let reason = "the same for a unit larder.service, if there is one";
        if let Some(setting) = draft.file(SettingArea::Limits, UNIT_LIMITS_FILE, text, reason) {
            setting.then = Some("systemctl --no-block daemon-reload".to_owned());
        }
    }
}
