//! What is to be done to a machine: the second of the three steps, a pure function.

mod balancer_options;
mod cpus;
mod disks;
mod interrupts;
mod irqbalance;
mod network;
mod setting;
mod system;

pub use setting::{SettingArea, SettingKind, TuneSetting, written_form};

use crate::cpu_mask::CpuMask;
use crate::cpu_plan::{CPU_PLAN_FILE, CpuPlan};
use crate::error::TuneError;
use crate::machine::Machine;
use crate::options::{TuneMode, TuneOptions};

/// What a machine is to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunePlan {
    /// The mode, which is never `auto`.
    pub mode: TuneMode,
    /// The CPUs that serve requests.
    pub compute: CpuMask,
    /// The CPUs that take interrupts: others than those, or, in mode `mq`, the same.
    pub interrupts: CpuMask,
    /// What is to be set, in this order, whether it is so already or not.
    pub settings: Vec<TuneSetting>,
    /// What the plan leaves to people.
    pub notes: Vec<String>,
    /// Files that it would be about, if what they say could be read, with the reason why not.
    pub unreadable: Vec<(String, String)>,
}

impl TunePlan {
    /// The settings that say something else now.
    pub fn differences(&self) -> impl Iterator<Item = &TuneSetting> {
        self.settings.iter().filter(|setting| setting.differs())
    }
}

/// Decides what the machine is to become.
///
/// # Errors
/// Options that contradict each other or the machine.
pub fn decide(machine: &Machine, options: &TuneOptions) -> Result<TunePlan, TuneError> {
    let division = cpus::divide(machine, options)?;
    let (settings, notes, unreadable) = Default::default();
    let mut draft = Draft { machine, settings, notes, unreadable };
    network::plan(&mut draft, options, &division)?;
    disks::plan(&mut draft, options, &division)?;
    irqbalance::plan(&mut draft);
    system::plan(&mut draft);
    let cpu_plan = CpuPlan {
        mode: division.mode,
        cpus: division.compute.clone(),
        interrupts: division.interrupts.clone(),
        options: options.clone(),
    };
    let reason = "`larder serve` learns from it which CPUs are its own";
    draft.file(SettingArea::Node, CPU_PLAN_FILE, cpu_plan.to_toml(), reason);
    // What moves interrupts by itself has to stop before they are moved.
    draft.settings.sort_by_key(|setting| setting.area);
    let Draft { settings, notes, unreadable, .. } = draft;
    let cpus::Division { mode, compute, interrupts } = division;
    Ok(TunePlan { mode, compute, interrupts, settings, notes, unreadable })
}

/// A plan that is being made.
struct Draft<'a> {
    machine: &'a Machine,
    settings: Vec<TuneSetting>,
    notes: Vec<String>,
    unreadable: Vec<(String, String)>,
}

impl Draft<'_> {
    /// Asks for a value of a setting of the kernel, if there is such a setting and nobody has asked
    /// for it before. Returns the setting, to say more about it.
    fn set(
        &mut self,
        area: SettingArea,
        path: &str,
        (kind, value): (SettingKind, String),
        reason: &str,
    ) -> Option<&mut TuneSetting> {
        let current = self.machine.content(path)?;
        if self.settings.iter().any(|setting| setting.path == path) {
            return None;
        }
        self.settings.push(TuneSetting {
            area,
            path: path.to_owned(),
            current: Some(current.to_owned()),
            kind,
            value,
            reason: reason.to_owned(),
            may_be_refused: false,
            then: None,
        });
        self.settings.last_mut()
    }

    /// Asks for the content of a file, which need not be there. Nothing is asked for of a file that
    /// is there and cannot be read: what it says would be lost. Returns the setting, to say more
    /// about it.
    fn file(
        &mut self,
        area: SettingArea,
        path: &str,
        content: String,
        reason: &str,
    ) -> Option<&mut TuneSetting> {
        let unreadable = self.machine.unreadable.iter().find(|(known, _)| known == path);
        if let Some(unreadable) = unreadable {
            self.note(format!("{path} is there and cannot be read, so it is left as it is"));
            self.unreadable.push(unreadable.clone());
            return None;
        }
        self.settings.push(TuneSetting {
            area,
            path: path.to_owned(),
            current: self.machine.content(path).map(str::to_owned),
            kind: SettingKind::File,
            value: content,
            reason: reason.to_owned(),
            may_be_refused: false,
            then: None,
        });
        self.settings.last_mut()
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}
