//! `larder tune`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::apply;
use crate::cpu_mask::CpuMask;
use crate::cpu_plan::{CPU_PLAN_FILE, CpuPlan};
use crate::error::TuneError;
use crate::machine::Machine;
use crate::options::{TuneMode, TuneOptions, read_options_file};
use crate::plan::{self, TunePlan};
use crate::print;
use crate::state::{STATE_DIRECTORY, STATE_FILE};
use crate::tree::SystemTree;

const HELP: &str = "\
Exit code: 0; 1 if --check finds a difference, or --undo leaves a file as it is because somebody has
changed it since; 2 if it could not be done.

--apply keeps the old values in /var/lib/larder/tune-state.toml before it changes anything, changes
all or nothing, and saves how the CPUs are divided in /etc/larder/cpu-plan.toml, where
`larder serve` finds it. Without options those of the saved plan hold. What it sets in /proc and
/sys holds until the machine is started again.

Examples:
  larder tune --show --dir /mnt/nvme/larder
  larder tune --dry-run --dir /mnt/nvme/larder
  larder tune --apply --dir /mnt/nvme/larder --nic eth0 --mode sq_split
  larder tune --check --dir /mnt/nvme/larder
  larder tune --undo";

/// `larder tune`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct TuneArgs {
    /// What is to be done.
    #[command(flatten)]
    pub action: TuneAction,
    /// Which CPUs take interrupts [default: auto]
    #[arg(long, value_name = "MODE")]
    pub mode: Option<TuneMode>,
    /// Network card to tune; may be given several times [default: all that are up]
    #[arg(long, value_name = "NAME")]
    pub nic: Vec<String>,
    /// Directory whose disks are tuned; may be given several times
    #[arg(long, value_name = "DIR")]
    pub dir: Vec<PathBuf>,
    /// CPUs to divide, as a list (0-7) or a mask (0xff) [default: all]
    #[arg(long, value_name = "CPUS")]
    pub cpu_mask: Option<CpuMask>,
    /// Those of them that take interrupts, instead of a mode
    #[arg(long, value_name = "CPUS")]
    pub irq_cpu_mask: Option<CpuMask>,
    /// TOML file with options (see --export-options); the command line wins, lists are joined
    #[arg(long, value_name = "FILE")]
    pub options_file: Option<PathBuf>,
    /// Directory that has another system's sys, proc and etc
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

/// What is to be done: one of these.
#[derive(Args, Clone, Debug, Default)]
#[group(required = true, multiple = false)]
pub struct TuneAction {
    /// Print what the machine is, and how its CPUs would be divided
    #[arg(long)]
    pub show: bool,
    /// Print a shell script that does what --apply would, with a reason for each line
    #[arg(long)]
    pub dry_run: bool,
    /// Change what differs from the plan
    #[arg(long)]
    pub apply: bool,
    /// Give everything that --apply has changed its old value
    #[arg(long)]
    pub undo: bool,
    /// Print what differs from the plan, and exit with 1 if something does
    #[arg(long)]
    pub check: bool,
    /// Print the CPUs that serve requests, as a mask
    #[arg(long)]
    pub get_cpu_mask: bool,
    /// Print the options in force as a file that --options-file reads
    #[arg(long)]
    pub export_options: bool,
}

const EXIT_DONE: u8 = 0;
/// The exit code where --check found a difference, or --undo has left one.
const EXIT_DIFFERS: u8 = 1;
/// The exit code where something could not be done.
const EXIT_NOT_DONE: u8 = 2;

/// Does what `larder tune` is asked for.
pub fn tune(args: &TuneArgs) -> ExitCode {
    let mut output = std::io::stdout().lock();
    let code = run(args, &mut output).unwrap_or_else(|error| {
        eprintln!("larder: {error}");
        EXIT_NOT_DONE
    });
    ExitCode::from(code)
}

/// The same with another output; returns the exit code.
pub(crate) fn run(args: &TuneArgs, output: &mut dyn Write) -> Result<u8, TuneError> {
    let tree = SystemTree::new(&args.root)
        .map_err(|source| TuneError::Root { path: args.root.clone(), source })?;
    // From here on, because what is read now is what would be kept as the old values.
    let is_change = args.action.undo || args.action.apply;
    let _lock = if is_change { Some(lock(&tree)?) } else { None };
    if args.action.undo {
        return undo(&tree, output);
    }
    let options = options(args, &tree)?;
    if args.action.export_options {
        write!(output, "{}", options.to_toml())?;
        return Ok(EXIT_DONE);
    }
    let machine = Machine::read(&tree)?;
    let plan = plan::decide(&machine, &options)?;
    for (path, reason) in &machine.unreadable {
        eprintln!("larder: {path} cannot be read, so nothing is said of it: {reason}");
    }
    let action = &args.action;
    if action.show {
        write!(output, "{}", print::machine(&machine, &plan))?;
    } else if action.dry_run {
        let script = print::script(&plan, &tree)
            .map_err(|source| TuneError::Root { path: args.root.clone(), source })?;
        write!(output, "{script}")?;
    } else if action.get_cpu_mask {
        writeln!(output, "{}", plan.compute.prefixed())?;
    } else if action.apply {
        apply(&tree, &machine, &plan, output)?;
    } else {
        write!(output, "{}", print::differences(&plan))?;
        if plan.settings.iter().any(plan::TuneSetting::is_wrong) {
            return Ok(EXIT_DIFFERS);
        }
    }
    Ok(EXIT_DONE)
}

fn options(args: &TuneArgs, tree: &SystemTree) -> Result<TuneOptions, TuneError> {
    let named = |path: &Path| tree.directory_named(path).display().to_string();
    let given = TuneOptions {
        mode: args.mode,
        nic: args.nic.clone(),
        dir: args.dir.iter().map(|path| named(path)).collect(),
        cpu_mask: args.cpu_mask.clone(),
        irq_cpu_mask: args.irq_cpu_mask.clone(),
    };
    let Some(path) = &args.options_file else {
        return if given == TuneOptions::default() { saved_options(tree) } else { Ok(given) };
    };
    let mut file = read_options_file(path)
        .map_err(|message| TuneError::OptionsFile { path: path.clone(), message })?;
    file.dir.iter_mut().for_each(|path| *path = named(Path::new(path)));
    Ok(given.over(file))
}

/// Keeps other runs of this program from changing something meanwhile.
fn lock(tree: &SystemTree) -> Result<Option<File>, TuneError> {
    tree.lock(STATE_DIRECTORY).map_err(|error| TuneError::State {
        path: STATE_DIRECTORY.to_owned(),
        message: format!("another `larder tune` is changing something; try again ({error})"),
    })
}

/// What the saved plan was asked for with: who asks for nothing means that plan.
fn saved_options(tree: &SystemTree) -> Result<TuneOptions, TuneError> {
    Ok(saved_plan(tree)?.map(|plan| plan.options).unwrap_or_default())
}

fn saved_plan(tree: &SystemTree) -> Result<Option<CpuPlan>, TuneError> {
    let wrong = |path: PathBuf, message| TuneError::SavedPlan { path, message };
    let path = tree
        .path_of(CPU_PLAN_FILE)
        .map_err(|error| wrong(CPU_PLAN_FILE.into(), error.to_string()))?;
    CpuPlan::load(&path).map_err(|message| wrong(path, message))
}

fn apply(
    tree: &SystemTree,
    machine: &Machine,
    plan: &TunePlan,
    output: &mut dyn Write,
) -> Result<(), TuneError> {
    let applied = apply::apply(tree, machine, plan)?;
    writeln!(output, "{} settings changed (`larder tune --undo`)", applied.changed.len())?;
    for command in &applied.caught_up {
        writeln!(output, "`{command}` was run: an earlier change had not come so far")?;
    }
    for path in &applied.kept {
        writeln!(output, "{path}: the kernel keeps this one to itself")?;
    }
    for note in &plan.notes {
        writeln!(output, "note: {note}")?;
    }
    Ok(())
}

fn undo(tree: &SystemTree, output: &mut dyn Write) -> Result<u8, TuneError> {
    let undone = apply::undo(tree)?;
    writeln!(output, "{} settings have their old values again", undone.restored.len())?;
    for path in &undone.gone {
        writeln!(output, "{path}: it is not there any more")?;
    }
    if undone.by_restart > 0 {
        let count = undone.by_restart;
        writeln!(output, "{count} settings were undone when the machine was started again")?;
    }
    for path in &undone.edited {
        writeln!(
            output,
            "{path}: somebody has changed it since --apply wrote it, so it is left as it is; what \
             it was before is in {STATE_FILE}, which you can remove when you have seen to it"
        )?;
    }
    Ok(if undone.edited.is_empty() { EXIT_DONE } else { EXIT_DIFFERS })
}

/// What a node is told of a machine that is not tuned for it: how many settings differ, and the
/// command that lists them. The plan is that of the saved CPU plan or, without one, the usual one
/// for the directory. `None` if nothing differs, or nothing can be found out.
pub fn untuned(directory: &Path) -> Option<(usize, String)> {
    untuned_in(&SystemTree::new(Path::new("/")).ok()?, directory)
}

/// The same of another system.
pub(crate) fn untuned_in(tree: &SystemTree, directory: &Path) -> Option<(usize, String)> {
    let options = match saved_plan(tree).ok()? {
        Some(plan) => plan.options,
        None => TuneOptions {
            dir: vec![tree.directory_named(directory).display().to_string()],
            ..TuneOptions::default()
        },
    };
    let machine = Machine::read(tree).ok()?;
    let plan = plan::decide(&machine, &options).ok()?;
    let differing = plan.settings.iter().filter(|setting| setting.is_wrong()).count();
    let command = format!("larder tune --check{}", options.command_line());
    (differing > 0).then_some((differing, command))
}
