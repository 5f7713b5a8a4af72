//! The `larder` binary.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use larder::ask::{
    self, DelArgs, GetArgs, IncrArgs, ItemsArgs, NamespaceArgs, PingArgs, ScanArgs, SetArgs,
    StatsArgs,
};
use larder::config::{self, Config, ServeArgs};
use larder::inspect::{self, CheckArgs, SpaceArgs};
use larder::launch::{Launcher, StartError, Stopper};
use larder::log::LogControl;
use larder::memcached_options::{self, MemcachedArgs};
use larder::process::MEMCACHED_VERSION;
use larder_perftune::command::{self as perftune, TuneArgs};
use larder_perftune::iotune::{self, IotuneArgs};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A storage node for local NVMe that speaks memcached, and a protocol of its own.
#[derive(Parser)]
#[command(name = "larder", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a data directory
    Serve(Box<ServeArgs>),
    /// Serve, with the command line of memcached
    #[command(version = MEMCACHED_VERSION, display_name = "memcached")]
    Memcached(Box<MemcachedArgs>),
    /// Put load on a server that speaks memcached, or on the engine alone, and measure
    Bench(larder_bench::BenchArgs),
    /// Check every checksum and every pointer of a data directory, without changing it
    Check(CheckArgs),
    /// Explain what every byte of a data directory is for
    Space(SpaceArgs),
    /// Tune this machine for the node: show, check, change, and undo
    Tune(TuneArgs),
    /// Measure what the disk of a directory can do
    Iotune(IotuneArgs),
    /// Read an item of a running node and print its value
    Get(GetArgs),
    /// Store a value in a running node
    Set(SetArgs),
    /// Delete items of a running node
    Del(DelArgs),
    /// Change a number in a running node and print it
    Incr(IncrArgs),
    /// Print the items of a record of a running node
    Items(ItemsArgs),
    /// Print all items of a running node
    Scan(ScanArgs),
    /// Make, change, list and drop the namespaces of a running node
    Ns(NamespaceArgs),
    /// Ask a running node for a sign of life
    Ping(PingArgs),
    /// Print a running node's figures
    Stats(StatsArgs),
    /// Print what a shell needs to complete this program's words
    #[command(after_help = COMPLETION_HELP)]
    Completion {
        /// For which shell
        shell: Shell,
    },
}

const COMPLETION_HELP: &str = "\
  larder completion bash > /etc/bash_completion.d/larder
  larder completion zsh > ~/.zfunc/_larder
  larder completion fish > ~/.config/fish/completions/larder.fish";

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Serve(args) => serve(&args),
        Command::Memcached(args) => memcached(&args),
        Command::Bench(args) => larder_bench::run(args).map_err(Failure::from),
        Command::Check(args) => return inspect::check(&args),
        Command::Space(args) => return inspect::space(&args),
        Command::Tune(args) => return perftune::tune(&args),
        Command::Iotune(args) => return iotune::iotune(&args),
        Command::Get(args) => return ask::get(&args),
        Command::Set(args) => return ask::set(&args),
        Command::Del(args) => return ask::del(&args),
        Command::Incr(args) => return ask::incr(&args),
        Command::Items(args) => return ask::items(&args),
        Command::Scan(args) => return ask::scan(&args),
        Command::Ns(args) => return ask::namespaces(&args),
        Command::Ping(args) => return ask::ping(&args),
        Command::Stats(args) => return ask::stats(&args),
        Command::Completion { shell } => completion(shell),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("larder: {error}");
            ExitCode::FAILURE
        }
    }
}

fn completion(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "larder", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}

fn serve(args: &ServeArgs) -> Result<(), Failure> {
    let config = config::load(args, std::env::vars_os())?;
    if args.print_config {
        write!(std::io::stdout(), "{}", config.to_toml())?;
        return Ok(());
    }
    let log = start_log(&config)?;
    run(&config, log, None)
}

/// The same with memcached's command line.
fn memcached(args: &MemcachedArgs) -> Result<(), Failure> {
    let cpus = std::thread::available_parallelism()?.get();
    let translation = memcached_options::translate(args, cpus)?;
    let options = ServeArgs { options: translation.options, ..ServeArgs::default() };
    let config = Config {
        raise_memory: true,
        has_memcached_port: !translation.has_no_port,
        prefix_delimiter: translation.prefix_delimiter,
        ..config::load(&options, std::env::vars_os())?
    };
    if args.print_config {
        write!(std::io::stdout(), "{}", config.to_toml())?;
        return Ok(());
    }
    for word in &translation.words {
        eprintln!("larder: {word}");
    }
    let log = start_log(&config)?;
    run(&config, log, args.pidfile.as_deref())
}

/// Serves until it is told to stop. While it does, `pidfile` has the number of the process.
fn run(config: &Config, log: LogControl, pidfile: Option<&Path>) -> Result<(), Failure> {
    warn_if_untuned(&config.data_dir);
    let launcher = Launcher::default().with_log(log);
    watch_signals(launcher.stopper())?;
    let node = match launcher.start(config) {
        Err(StartError::Stopped { reason }) => {
            // Nothing was acknowledged, and the log stays as it was: this is a good end.
            tracing::info!("stopped before it was ready: {reason}");
            return Ok(());
        }
        started => started?,
    };
    if let Some(path) = pidfile
        && let Err(error) = write_pidfile(path)
    {
        node.stop();
        node.join()?;
        return Err(format!("-P {}: {error}", path.display()).into());
    }
    writeln!(std::io::stdout(), "{}", node.addresses())?;
    let ended = node.join();
    if let Some(path) = pidfile {
        remove_pidfile(path);
    }
    Ok(ended?)
}

fn warn_if_untuned(data_dir: &Path) {
    if let Some((settings, command)) = perftune::untuned(data_dir) {
        tracing::warn!(
            "this machine is not tuned: {settings} settings differ from what serves a node best; \
             `{command}` lists them"
        );
    }
}

#[allow(clippy::disallowed_methods, reason = "the file is for others, not the node's")]
fn write_pidfile(path: &Path) -> std::io::Result<()> {
    std::fs::write(path, format!("{}\n", std::process::id()))
}

#[allow(clippy::disallowed_methods, reason = "as above")]
fn remove_pidfile(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!("cannot remove {}: {error}", path.display());
    }
}

fn start_log(config: &Config) -> Result<LogControl, Failure> {
    let level = &config.log_level;
    Ok(LogControl::start(level).map_err(|error| format!("--log-level {level}: {error}"))?)
}

/// The first signal stops the node in good order, the second at once.
fn watch_signals(stopper: Stopper) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let watch = move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            stopper.stop("a signal");
        }
        if signals.next().is_some() {
            eprintln!("larder: stopped at once by a second signal");
            std::process::exit(1);
        }
    };
    std::thread::Builder::new().name("larder-signals".to_owned()).spawn(watch)?;
    Ok(())
}
