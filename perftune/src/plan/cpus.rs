//! Which CPUs take interrupts and which serve requests.

use std::collections::BTreeMap;

use crate::cpu_mask::CpuMask;
use crate::error::TuneError;
use crate::machine::{Machine, MachineCpu};
use crate::options::{TuneMode, TuneOptions};

/// Up to so many CPUs none is spared from requests.
const SHARED_CPUS_MAX: usize = 4;
/// Up to so many cores one thread is enough for interrupts.
const ONE_THREAD_CORES_MAX: usize = 4;
/// So many cores are served by one core that takes interrupts.
const CORES_PER_INTERRUPT_CORE: usize = 16;

/// How the CPUs are divided. Both sets are the same, or have none in common.
#[derive(Clone, Debug)]
pub(super) struct Division {
    pub mode: TuneMode,
    pub compute: CpuMask,
    pub interrupts: CpuMask,
}

impl Division {
    /// All CPUs of the plan.
    pub(super) fn all(&self) -> CpuMask {
        self.compute.or(&self.interrupts)
    }
}

/// Divides the CPUs as the options say.
pub(super) fn divide(machine: &Machine, options: &TuneOptions) -> Result<Division, TuneError> {
    let available = machine.all_cpus();
    let known = |option, mask: &CpuMask| {
        if mask.is_empty() {
            return Err(TuneError::EmptyMask { option, available: available.clone() });
        }
        let missing = mask.without(&available);
        if missing.is_empty() {
            return Ok(mask.clone());
        }
        Err(TuneError::CpusMissing { option, missing, available: available.clone() })
    };
    let cpus = match &options.cpu_mask {
        Some(mask) => known("--cpu-mask", mask)?,
        None => available.clone(),
    };
    let used: Vec<MachineCpu> =
        machine.cpus.iter().filter(|cpu| cpus.contains(cpu.number)).copied().collect();
    let asked = options.mode.unwrap_or(TuneMode::Auto);
    if let Some(mask) = &options.irq_cpu_mask {
        let interrupts = known("--irq-cpu-mask", mask)?;
        if asked != TuneMode::Auto {
            return Err(TuneError::TwoChoices { mode: asked, mask: interrupts });
        }
        let outside = interrupts.without(&cpus);
        if !outside.is_empty() {
            return Err(TuneError::OutsideMask { outside, allowed: cpus });
        }
        return Ok(divided(&cpus, interrupts, &used));
    }
    let interrupts = match asked {
        TuneMode::Auto => by_size(&used)?,
        TuneMode::Mq => cpus.clone(),
        TuneMode::Sq => CpuMask::of(cpus.first()),
        TuneMode::SqSplit => first_cores(&used, 1),
    };
    if asked != TuneMode::Mq && asked != TuneMode::Auto && interrupts == cpus {
        return Err(TuneError::NothingLeft { mode: asked, cpus });
    }
    let division = divided(&cpus, interrupts, &used);
    Ok(if asked == TuneMode::Auto { division } else { Division { mode: asked, ..division } })
}

/// Requests get what interrupts leave; if that is nothing, they share.
fn divided(cpus: &CpuMask, interrupts: CpuMask, used: &[MachineCpu]) -> Division {
    let rest = cpus.without(&interrupts);
    let compute = if rest.is_empty() { cpus.clone() } else { rest };
    // A mode that was not asked for is named after what comes of it.
    let mode = if compute == interrupts {
        TuneMode::Mq
    } else if interrupts.count() == 1 && first_cores(used, 1) != interrupts {
        TuneMode::Sq
    } else {
        TuneMode::SqSplit
    };
    Division { mode, compute, interrupts }
}

/// The CPUs for interrupts where nobody says which.
fn by_size(used: &[MachineCpu]) -> Result<CpuMask, TuneError> {
    let cores = cores_of(used).len();
    if used.len() <= SHARED_CPUS_MAX {
        return Ok(CpuMask::of(used.iter().map(|cpu| cpu.number)));
    }
    if cores <= ONE_THREAD_CORES_MAX {
        return Ok(CpuMask::of(used.iter().map(|cpu| cpu.number).min()));
    }
    if cores <= CORES_PER_INTERRUPT_CORE {
        return Ok(first_cores(used, 1));
    }
    let mut nodes: BTreeMap<usize, Vec<MachineCpu>> = BTreeMap::new();
    for cpu in used {
        nodes.entry(cpu.node).or_default().push(*cpu);
    }
    let counts: Vec<usize> = nodes.values().map(|cpus| cores_of(cpus).len()).collect();
    if counts.windows(2).any(|pair| pair[0] != pair[1]) {
        let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
        return Err(TuneError::UnevenNodes { counts: counts.join(", ") });
    }
    let wanted = cores.div_ceil(CORES_PER_INTERRUPT_CORE).div_ceil(nodes.len());
    let chosen = nodes.values().map(|cpus| first_cores(cpus, wanted));
    Ok(chosen.fold(CpuMask::default(), |all, some| all.or(&some)))
}

/// The threads of each core.
fn cores_of(cpus: &[MachineCpu]) -> BTreeMap<usize, Vec<usize>> {
    let mut cores: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for cpu in cpus {
        cores.entry(cpu.core).or_default().push(cpu.number);
    }
    cores
}

fn first_cores(cpus: &[MachineCpu], count: usize) -> CpuMask {
    CpuMask::of(cores_of(cpus).into_values().take(count).flatten())
}

/// The CPUs of a set in the order in which interrupts are spread over them: one thread of each core
/// before the second of any, and one node after the other in turn.
pub(super) fn spread_order(machine: &Machine, mask: &CpuMask) -> Vec<usize> {
    let used: Vec<MachineCpu> =
        machine.cpus.iter().filter(|cpu| mask.contains(cpu.number)).copied().collect();
    let mut cores_of_node: BTreeMap<usize, usize> = BTreeMap::new();
    let mut order: Vec<(usize, usize, usize, usize)> = Vec::new();
    for (core, threads) in cores_of(&used) {
        let node = used.iter().find(|cpu| cpu.core == core).map_or(0, |cpu| cpu.node);
        let place = cores_of_node.entry(node).or_default();
        order.extend(threads.iter().enumerate().map(|(rank, cpu)| (rank, *place, node, *cpu)));
        *place += 1;
    }
    order.sort_unstable();
    order.into_iter().map(|(_, _, _, cpu)| cpu).collect()
}

/// The CPUs of a set so that neighbours share a core, or at least a node.
pub(super) fn neighbour_order(machine: &Machine, mask: &CpuMask) -> Vec<usize> {
    let mut used: Vec<&MachineCpu> =
        machine.cpus.iter().filter(|cpu| mask.contains(cpu.number)).collect();
    used.sort_by_key(|cpu| (cpu.node, cpu.core, cpu.number));
    used.into_iter().map(|cpu| cpu.number).collect()
}
