//! CPUs, which of them share a core, and NUMA nodes.

use std::collections::BTreeMap;

use super::{Reader, parse_number};
use crate::cpu_mask::CpuMask;
use crate::error::TuneError;

const CPU_FOLDER: &str = "/sys/devices/system/cpu";
const NODE_FOLDER: &str = "/sys/devices/system/node";

/// A CPU as the kernel counts them: a hardware thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineCpu {
    /// Its number.
    pub number: usize,
    /// The lowest number among the threads of its core.
    pub core: usize,
    /// Its NUMA node.
    pub node: usize,
}

/// The CPUs that are online.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Vec<MachineCpu>, TuneError> {
    let path = format!("{CPU_FOLDER}/online");
    let broken = |path: &str, why: String| TuneError::Topology { path: path.to_owned(), why };
    let Some(text) = reader.word(&path) else {
        return Err(broken(&path, "it cannot be read; is --root right?".to_owned()));
    };
    let online = CpuMask::from_list(&text).map_err(|why| broken(&path, why))?;
    if online.is_empty() {
        return Err(broken(&path, "no CPU is online".to_owned()));
    }
    let nodes = read_nodes(reader, &online)?;
    let mut cpus = Vec::new();
    for number in online.iter() {
        let path = format!("{CPU_FOLDER}/cpu{number}/topology/thread_siblings_list");
        let siblings = match reader.word(&path) {
            Some(text) => CpuMask::from_list(&text).map_err(|why| broken(&path, why))?,
            None => CpuMask::of([number]),
        };
        if !siblings.contains(number) {
            return Err(broken(&path, format!("CPU {number} is not among its own threads")));
        }
        let core = siblings.and(&online).first().unwrap_or(number);
        cpus.push(MachineCpu { number, core, node: nodes.get(&number).copied().unwrap_or(0) });
    }
    Ok(cpus)
}

/// The node of each CPU; empty where the kernel knows of no nodes.
fn read_nodes(
    reader: &mut Reader<'_>,
    online: &CpuMask,
) -> Result<BTreeMap<usize, usize>, TuneError> {
    let mut nodes = BTreeMap::new();
    for name in reader.list(NODE_FOLDER) {
        let Some(node) = name.strip_prefix("node").and_then(parse_number::<usize>) else {
            continue;
        };
        let path = format!("{NODE_FOLDER}/{name}/cpulist");
        let Some(text) = reader.word(&path) else { continue };
        let broken = |why| TuneError::Topology { path: path.clone(), why };
        let cpus = CpuMask::from_list(&text).map_err(broken)?;
        for cpu in cpus.and(online).iter() {
            if let Some(other) = nodes.insert(cpu, node) {
                return Err(broken(format!("CPU {cpu} is in node {other} as well")));
            }
        }
    }
    match online.iter().find(|cpu| !nodes.contains_key(cpu)) {
        Some(cpu) if !nodes.is_empty() => Err(TuneError::Topology {
            path: NODE_FOLDER.to_owned(),
            why: format!("CPU {cpu} is in no node"),
        }),
        _ => Ok(nodes),
    }
}
