//! Which CPUs the node runs on.
//!
//! `--cpus` says so, or the CPU plan that `--cpu-plan` names, or the one that `larder tune` has
//! saved where everybody looks. With a plan the kernel's threads that work for the cores' rings
//! keep to its CPUs too, so that those which take interrupts have nothing else to do.

use std::path::Path;

use larder_perftune::cpu_plan::{CPU_PLAN_FILE, CpuPlan};
use larder_runtime::affinity::CpuBits;

use super::StartError;
use crate::config::{Config, CpuList};

/// The CPUs of the node.
pub(super) struct ChosenCpus {
    /// One for each core.
    pub cores: Vec<usize>,
    /// Those of the kernel's threads that work for the rings; `None` leaves it to the kernel.
    pub workers: Option<CpuBits>,
}

/// The CPUs to run on.
pub(super) fn choose(config: &Config) -> Result<ChosenCpus, StartError> {
    let set = rustix::thread::sched_getaffinity(None)
        .map_err(|source| StartError::Cpus { source: source.into() })?;
    let allowed: Vec<usize> =
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
    choose_among(&allowed, config, Path::new(CPU_PLAN_FILE))
}

fn choose_among(
    allowed: &[usize],
    config: &Config,
    usual: &Path,
) -> Result<ChosenCpus, StartError> {
    let plan = plan(allowed, config, usual)?;
    let planned = plan.as_ref().map(|plan| CpuList(plan.cpus.iter().collect()));
    let cores = limit(allowed, planned.as_ref().or(config.cpus.as_ref()), config.cores)?;
    let workers = plan.and_then(|plan| CpuBits::of(plan.cpus.iter()));
    Ok(ChosenCpus { cores, workers })
}

/// The plan that counts. One that was not named is passed over where it does not fit: a machine
/// that became another one still starts.
fn plan(allowed: &[usize], config: &Config, usual: &Path) -> Result<Option<CpuPlan>, StartError> {
    let wrong =
        |path: &Path, reason: String| Err(StartError::CpuPlan { path: path.to_owned(), reason });
    match (&config.cpu_plan, &config.cpus) {
        (Some(path), Some(_)) => {
            wrong(path, "--cpus says which CPUs to run on as well; give one of them".to_owned())
        }
        (Some(path), None) => match load(path, allowed, config.cores) {
            Ok(Some(plan)) => Ok(Some(plan)),
            Ok(None) => wrong(path, "there is no such file".to_owned()),
            Err(reason) => wrong(path, reason),
        },
        (None, Some(_)) => Ok(None),
        (None, None) => Ok(load(usual, allowed, config.cores).unwrap_or_else(|reason| {
            let path = usual.display();
            tracing::warn!("the CPU plan {path} is not taken: {reason}");
            None
        })),
    }
}

fn load(path: &Path, allowed: &[usize], cores: Option<usize>) -> Result<Option<CpuPlan>, String> {
    let Some(plan) = CpuPlan::load(path)? else { return Ok(None) };
    let count = plan.cpus.count();
    if let Some(cores) = cores.filter(|cores| *cores > count) {
        return Err(format!("it has {count} CPUs, and --cores asks for {cores}"));
    }
    let foreign = plan.cpus.iter().find(|cpu| !allowed.contains(cpu));
    let Some(cpu) = foreign else { return Ok(Some(plan)) };
    let allowed = CpuList(allowed.to_vec());
    Err(format!(
        "it names CPU {cpu}, and this process may use {allowed}: make it anew with `larder tune \
         --apply`, or give --cpus"
    ))
}

/// The CPUs that are asked for, and no more of them than there are to be cores.
fn limit(
    allowed: &[usize],
    cpus: Option<&CpuList>,
    cores: Option<usize>,
) -> Result<Vec<usize>, StartError> {
    let mut chosen = cpus.map_or_else(|| allowed.to_vec(), |list| list.0.clone());
    if let Some(cpu) = chosen.iter().find(|cpu| !allowed.contains(cpu)) {
        let allowed = CpuList(allowed.to_vec());
        return Err(StartError::CpuNotAllowed { cpu: *cpu, allowed });
    }
    let cores = cores.unwrap_or(chosen.len());
    if cores > chosen.len() {
        return Err(StartError::TooManyCores { cores, cpus: CpuList(chosen) });
    }
    chosen.truncate(cores);
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: [usize; 3] = [1, 2, 4];

    #[test]
    fn cpus_are_chosen_from_those_allowed() {
        let list = CpuList(vec![4, 2]);
        let choose = |cpus, cores| limit(&ALLOWED, cpus, cores);
        assert_eq!(choose(None, None).expect("all"), [1, 2, 4]);
        assert_eq!(choose(None, Some(2)).expect("two"), [1, 2]);
        assert_eq!(choose(Some(&list), None).expect("those"), [4, 2]);
        let other = CpuList(vec![3]);
        let error = choose(Some(&other), None).expect_err("not allowed").to_string();
        assert!(error.contains("CPU 3") && error.contains("1,2,4"), "{error}");
        let error = choose(Some(&list), Some(3)).expect_err("too many").to_string();
        assert!(error.contains("--cores 3") && error.contains("4,2"), "{error}");
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test brings a plan")]
    fn a_plan_counts_where_nothing_else_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plan.toml");
        let choose = |config: &Config| choose_among(&ALLOWED, config, &path);
        let default = Config::default();
        let named = Config { cpu_plan: Some(path.clone()), ..Config::default() };
        let chosen = choose(&default).expect("no plan is none");
        assert_eq!((chosen.cores, chosen.workers), (ALLOWED.to_vec(), None));
        let error = choose(&named).err().expect("a plan was asked for").to_string();
        assert!(error.contains("--cpu-plan") && error.contains("no such file"), "{error}");

        let write = |cpus: &str| {
            let text = format!("mode = \"sq\"\ncpus = \"{cpus}\"\ninterrupts = \"1\"\n");
            std::fs::write(&path, text).expect("written");
        };
        write("2,4");
        for config in [&default, &named] {
            let chosen = choose(config).expect("the plan's");
            assert_eq!((chosen.cores, chosen.workers), (vec![2, 4], CpuBits::of([2, 4])));
        }
        let many = Config { cores: Some(3), ..Config::default() };
        assert_eq!(choose(&many).expect("passed over").cores, ALLOWED);
        let many = Config { cpu_plan: named.cpu_plan.clone(), ..many };
        let error = choose(&many).err().expect("too many").to_string();
        assert!(error.contains("--cores asks for 3"), "{error}");
        let one = Config { cores: Some(1), ..Config::default() };
        assert_eq!(choose(&one).expect("one of them").cores, [2]);
        let cpus = Config { cpus: Some(CpuList(vec![1])), ..Config::default() };
        let chosen = choose(&cpus).expect("those");
        assert_eq!((chosen.cores, chosen.workers), (vec![1], None));
        let both = Config { cpu_plan: named.cpu_plan.clone(), ..cpus };
        let error = choose(&both).err().expect("two choices").to_string();
        assert!(error.contains("--cpus"), "{error}");

        write("3,4");
        assert_eq!(choose(&default).expect("passed over").cores, ALLOWED);
        let error = choose(&named).err().expect("it does not fit").to_string();
        assert!(error.contains("CPU 3") && error.contains("1,2,4"), "{error}");
    }
}
