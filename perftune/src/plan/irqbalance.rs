//! irqbalance, which moves interrupts by itself: it is told to leave alone those that are bound.

use super::balancer_options::{sets, with_bans};
use super::setting::SettingArea;
use super::{Draft, TuneSetting};
use crate::machine::Machine;

/// The unit, wherever a distribution puts it.
const UNITS: [&str; 3] = [
    "/etc/systemd/system/irqbalance.service",
    "/usr/lib/systemd/system/irqbalance.service",
    "/lib/systemd/system/irqbalance.service",
];
/// Where its options are, with the variable that has them if neither the file nor a unit tells.
const FILES: [(&str, &str); 3] = [
    ("/etc/default/irqbalance", "OPTIONS"),
    ("/etc/sysconfig/irqbalance", "IRQBALANCE_ARGS"),
    ("/etc/conf.d/irqbalance", "IRQBALANCE_OPTS"),
];
const VARIABLES: [&str; 3] = ["IRQBALANCE_ARGS", "OPTIONS", "IRQBALANCE_OPTS"];

pub(super) fn plan(draft: &mut Draft<'_>) {
    let is_bound = |setting: &&TuneSetting| setting.area == SettingArea::Interrupts;
    let mut numbers: Vec<u32> = draft.settings.iter().filter(is_bound).filter_map(number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let machine = draft.machine;
    let unit = UNITS.into_iter().find_map(|path| machine.content(path));
    let file = FILES.into_iter().find(|(path, _)| machine.content(path).is_some());
    let Some((path, usual)) = file else {
        if unit.is_some() && !numbers.is_empty() {
            draft.note(
                "irqbalance is installed, but its options are in none of the usual files: keep it \
                 from moving interrupts, or disable it"
                    .to_owned(),
            );
        }
        return;
    };
    let content = machine.content(path).unwrap_or_default();
    let variable = variable(content, unit).unwrap_or(usual);
    let Some(new) = with_bans(content, variable, &numbers) else {
        if !numbers.is_empty() {
            draft.note(format!(
                "{path}: {variable} is written in a way that is not sure to be understood, so it \
                 is left alone: have irqbalance keep off the interrupts that are bound (--banirq)"
            ));
        }
        return;
    };
    if numbers.is_empty() && new == content {
        return;
    }
    let reason = "irqbalance leaves the interrupts alone that are bound below";
    let restart = restart(machine, unit);
    if restart.is_none() {
        draft.note("irqbalance has to be started again, if it runs: how is not known".to_owned());
    }
    if let Some(setting) = draft.file(SettingArea::Balancer, path, new, reason) {
        setting.then = restart;
    }
}

/// The number in the path of an interrupt's setting.
fn number(setting: &TuneSetting) -> Option<u32> {
    setting.path.split('/').nth(3)?.parse().ok()
}

/// How it is started again, if it is installed so that this is known.
fn restart(machine: &Machine, unit: Option<&str>) -> Option<String> {
    let runs_systemd = machine.content("/proc/1/comm").is_some_and(|name| name.trim() == "systemd");
    if runs_systemd && unit.is_some() {
        return Some("systemctl --no-block try-restart irqbalance.service".to_owned());
    }
    let script = "/etc/init.d/irqbalance";
    machine.content(script).filter(|_| !runs_systemd).map(|_| format!("{script} restart"))
}

/// The variable that the unit gives to the program, or else the one that the file sets.
fn variable(content: &str, unit: Option<&str>) -> Option<&'static str> {
    let starts = |line: &&str| line.trim_start().starts_with("ExecStart=");
    let start = unit.and_then(|unit| unit.lines().find(starts)).unwrap_or_default();
    let mut used = VARIABLES.into_iter().filter(|name| {
        start.contains(&format!("${name}")) || start.contains(&format!("${{{name}}}"))
    });
    let set = VARIABLES.into_iter().find(|name| sets(content, name));
    let used: Vec<&str> = used.by_ref().collect();
    match set {
        Some(name) if used.is_empty() || used.contains(&name) => Some(name),
        _ => VARIABLES.into_iter().find(|name| used.contains(name)).or(set),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_says_which_variable_counts() {
        let unit = "[Service]\nExecStart=/usr/sbin/irqbalance --foreground $IRQBALANCE_ARGS\n";
        assert_eq!(variable("OPTIONS=\n", Some(unit)), Some("IRQBALANCE_ARGS"));
        assert_eq!(variable("", Some(unit)), Some("IRQBALANCE_ARGS"));
        let both = "ExecStart=/usr/sbin/irqbalance $OPTIONS $IRQBALANCE_ARGS";
        assert_eq!(variable("OPTIONS='x'", Some(both)), Some("OPTIONS"));
        assert_eq!(variable("OPTIONS=", None), Some("OPTIONS"));
        assert_eq!(variable("# OPTIONS=", None), None);
    }
}
