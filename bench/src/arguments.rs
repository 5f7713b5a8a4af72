//! The command line of `larder bench`, and its way into checked [`Settings`].

use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::engine::EngineArgs;
use crate::error::BenchError;
use crate::host;
use crate::io::IoBenchArgs;
use crate::load::hostile::HostileArgs;
use crate::load::{Distribution, Locality, Protocol, Ratio, Settings};
use crate::versus::RuntimesArgs;

/// `larder bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// The subcommands of `larder bench`.
#[derive(Subcommand, Clone, Debug)]
pub enum BenchCommand {
    /// Load a server over its memcached or native port and report rate, latency and CPU time
    Run(RunArgs),
    /// Make requests at a fixed rate while other connections misbehave, and report latencies
    Hostile(HostileArgs),
    /// Load the storage engine inside this process, without sockets, and watch its disk space
    Engine(Box<EngineArgs>),
    /// Put classes of disk requests on a disk through the node's scheduler, and see what each gets
    Io(IoBenchArgs),
    /// Start this program on its ring and on glommio, and compare CPU time and latencies
    Runtimes(RuntimesArgs),
}

const RUN_HELP: &str = "\
Example:
  larder bench run --target memcached://127.0.0.1:11211 --connections 50 --depth 16 \\
      --value-size 1000 --keys 100000 --ratio 9:1 --duration 10 --server-pid \"$(pidof larder)\"

How the load is made:
  The loop is closed. Each connection writes --depth requests in one write, waits until all of them
  are answered, and only then writes the next batch, so at most --connections x --depth requests are
  in flight. Latency is counted from the write of a batch to the read that brought the answer.

How values are checked:
  A value follows from its key and --value-size. Of each answer to a GET the length and the first
  eight bytes are compared; a difference is counted as `wrong value`, and the command then fails.";

/// `larder bench run`.
#[derive(Args, Clone, Debug)]
#[command(after_help = RUN_HELP)]
pub struct RunArgs {
    /// The server, as memcached://HOST:PORT or native://HOST:PORT
    #[arg(long, value_name = "URL", default_value = "memcached://127.0.0.1:11211")]
    pub target: String,
    /// Connections, spread over the loader's threads
    #[arg(long, value_name = "C", default_value_t = 50)]
    pub connections: usize,
    /// Requests in flight on each connection
    #[arg(long, value_name = "D", default_value_t = 1)]
    pub depth: usize,
    /// Bytes of each value
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub value_size: usize,
    /// Bytes of each key
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub key_size: usize,
    /// How many keys there are
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub keys: u64,
    /// How many GETs to how many SETs
    #[arg(long, value_name = "GET:SET", default_value = "9:1")]
    pub ratio: Ratio,
    /// Seconds of the timed run; a fraction is allowed
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub duration: f64,
    /// Stop after this many operations, even if --duration is not over
    #[arg(long, value_name = "N")]
    pub operations: Option<u64>,
    /// Give up when no answer comes for this many seconds
    #[arg(long, value_name = "S", default_value_t = 30.0)]
    pub timeout: f64,
    /// How keys are chosen: `uniform`, or `zipf:THETA` (0.99 is usual), scattered over all keys
    #[arg(long, value_name = "NAME", default_value = "uniform")]
    pub distribution: Distribution,
    /// Whose keys each connection asks for, where native:// leads to a node of several cores
    #[arg(long, value_name = "CORE", value_enum, default_value_t = LocalityArgument::Any)]
    pub keys_of: LocalityArgument,
    /// The loader's own threads
    #[arg(long, value_name = "T", default_value_t = 1)]
    pub threads: usize,
    /// Store every key once before the timed run (default: yes if --ratio has GETs)
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true
    )]
    pub fill: Option<bool>,
    /// Commands to send to memcached://: `meta` is mg and ms, `text` is get and set
    #[arg(long, value_name = "NAME", value_enum, default_value_t = ProtocolArgument::Meta)]
    pub protocol: ProtocolArgument,
    /// Seed of all random choices; the same seed makes the same requests
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Keep the loader's threads on these processors, for example 1 or 2,4-7
    #[arg(long, value_name = "LIST", default_value = "")]
    pub cpu: CpuList,
    /// Also report CPU time per operation and memory of this local process
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The value of `--protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProtocolArgument {
    /// `mg` and `ms`.
    Meta,
    /// `get` and `set`.
    Text,
}

/// The value of `--keys-of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LocalityArgument {
    /// All keys, whichever core has them.
    Any,
    /// Keys of the core that the connection is on, as a client asks that knows the owner.
    Own,
    /// Keys of other cores: each request goes from one core to another.
    Other,
}

impl From<LocalityArgument> for Locality {
    fn from(argument: LocalityArgument) -> Self {
        match argument {
            LocalityArgument::Any => Self::Any,
            LocalityArgument::Own => Self::Own,
            LocalityArgument::Other => Self::Other,
        }
    }
}

/// The value of `--cpu`: processor numbers, in the order given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuList(pub(crate) Vec<usize>);

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut cpus = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (cpu_number(first)?, cpu_number(last)?);
            if first > last {
                return Err(format!("{part} runs backwards; write {last}-{first}"));
            }
            cpus.extend(first..=last);
        }
        Ok(Self(cpus))
    }
}

fn cpu_number(text: &str) -> Result<usize, String> {
    match text.trim().parse::<usize>() {
        Ok(cpu) if cpu <= host::CPU_MAX => Ok(cpu),
        Ok(cpu) => Err(format!("processor {cpu} is over {}", host::CPU_MAX)),
        Err(_) => Err(format!("`{text}` is no processor number; write for example 0,2-5")),
    }
}

impl FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("`{text}` is not GET:SET; write for example 9:1");
        let (get, set) = text.split_once(':').ok_or_else(wanted)?;
        let get = get.parse::<u32>().map_err(|_| wanted())?;
        let set = set.parse::<u32>().map_err(|_| wanted())?;
        if get == 0 && set == 0 {
            return Err("0:0 asks for nothing; write for example 9:1".to_owned());
        }
        Ok(Self { get, set })
    }
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "uniform" {
            return Ok(Self::Uniform);
        }
        let theta = text
            .strip_prefix("zipf:")
            .and_then(|theta| theta.parse::<f64>().ok())
            .ok_or_else(|| format!("`{text}` is not known; write uniform or zipf:0.99"))?;
        if theta > 0.0 && theta <= 10.0 {
            Ok(Self::Zipf { theta })
        } else {
            Err(format!("zipf:{theta} is out of range; THETA is over 0 and at most 10"))
        }
    }
}

impl RunArgs {
    /// The arguments as checked settings; resolves the target's host name.
    pub(crate) fn settings(&self) -> Result<Settings, BenchError> {
        let seconds = |option, value| {
            Duration::try_from_secs_f64(value)
                .map_err(|_| BenchError::option(option, "must be seconds, for example 10"))
        };
        if self.server_pid.is_some_and(|pid| NonZeroU32::new(pid).is_none()) {
            return Err(BenchError::option("--server-pid", "0 is no process id"));
        }
        let (target, is_native) = match self.target.strip_prefix(NATIVE) {
            Some(host) => (address(host)?, true),
            None => (resolve(&self.target)?, false),
        };
        let settings = Settings {
            target,
            connections: self.connections,
            depth: self.depth,
            threads: self.threads,
            keys: self.keys,
            key_size: self.key_size,
            value_size: self.value_size,
            ratio: self.ratio,
            distribution: self.distribution,
            locality: self.keys_of.into(),
            duration: seconds("--duration", self.duration)?,
            timeout: seconds("--timeout", self.timeout)?,
            operations: self.operations,
            fill: self.fill.unwrap_or(self.ratio.get > 0),
            protocol: match self.protocol {
                _ if is_native => Protocol::Native,
                ProtocolArgument::Meta => Protocol::Meta,
                ProtocolArgument::Text => Protocol::Text,
            },
            seed: self.seed,
            cpus: self.cpu.0.clone(),
            server_pid: self.server_pid,
        };
        settings.check()?;
        Ok(settings)
    }
}

/// What the URL of a server begins with, by the protocol in which it is asked.
const MEMCACHED: &str = "memcached://";
const NATIVE: &str = "native://";

/// The address in a URL of a server that is asked in memcached's protocol.
pub(crate) fn resolve(target: &str) -> Result<SocketAddr, BenchError> {
    let Some(host) = target.strip_prefix(MEMCACHED) else {
        let reason = format!("`{target}` is not known; write {MEMCACHED}HOST:PORT");
        return Err(BenchError::option("--target", reason));
    };
    address(host)
}

fn address(host: &str) -> Result<SocketAddr, BenchError> {
    let host = host.trim_end_matches('/');
    host.to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| BenchError::NoAddress { host: host.to_owned() })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn settings(arguments: &[&str]) -> Result<Settings, String> {
        let line = ["bench", "run"].iter().chain(arguments);
        let command = Command::try_parse_from(line).map_err(|error| error.to_string())?;
        let BenchCommand::Run(run) = command.bench.command else { panic!("the command is run") };
        run.settings().map_err(|error| error.to_string())
    }

    #[test]
    fn every_option_reaches_the_settings() {
        let all = "--target memcached://127.0.0.1:7 --connections 8 --depth 16 --value-size 32 \
                   --key-size 20 --keys 500 --ratio 3:2 --duration 0.5 --operations 900 \
                   --timeout 2 --distribution zipf:0.99 --threads 2 --fill=false --protocol text \
                   --seed 9 --cpu 0,2-4 --server-pid 77";
        let settings = settings(&all.split_whitespace().collect::<Vec<_>>()).expect("accepted");
        let expected = Settings {
            target: "127.0.0.1:7".parse().expect("an address"),
            connections: 8,
            depth: 16,
            threads: 2,
            keys: 500,
            key_size: 20,
            value_size: 32,
            ratio: Ratio { get: 3, set: 2 },
            distribution: Distribution::Zipf { theta: 0.99 },
            locality: Locality::Any,
            duration: Duration::from_millis(500),
            operations: Some(900),
            timeout: Duration::from_secs(2),
            fill: false,
            protocol: Protocol::Text,
            seed: 9,
            cpus: vec![0, 2, 3, 4],
            server_pid: Some(77),
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn keys_are_filled_when_they_will_be_read() {
        assert!(settings(&[]).expect("defaults").fill);
        assert!(!settings(&["--ratio", "0:1"]).expect("only SETs").fill);
        assert!(settings(&["--ratio", "0:1", "--fill"]).expect("asked for").fill);
    }

    #[test]
    fn a_refusal_names_the_option() {
        for (arguments, option) in [
            (&["--target", "http://a:1"][..], "--target"),
            (&["--target", "memcached://127.0.0.1"], "--target"),
            (&["--target", "native://127.0.0.1"], "--target"),
            (&["--ratio", "0:0"], "--ratio"),
            (&["--ratio", "9"], "--ratio"),
            (&["--distribution", "zipf:0"], "--distribution"),
            (&["--distribution", "normal"], "--distribution"),
            (&["--keys-of", "own"], "--keys-of"),
            (&["--cpu", "4-2"], "--cpu"),
            (&["--cpu", "9999"], "--cpu"),
            (&["--duration=-1"], "--duration"),
            (&["--duration", "nan"], "--duration"),
            (&["--duration", "0"], "--duration"),
            (&["--timeout", "0"], "--timeout"),
            (&["--connections", "0"], "--connections"),
            (&["--threads", "51"], "--threads"),
            (&["--depth", "0"], "--depth"),
            (&["--keys", "0"], "--keys"),
            (&["--key-size", "5"], "--key-size"),
            (&["--key-size", "251"], "--key-size"),
            (&["--value-size", "999999999"], "--value-size"),
            (&["--server-pid", "0"], "--server-pid"),
        ] {
            let text = settings(arguments).expect_err("refused");
            assert!(text.contains(option), "{arguments:?}: {text}");
        }
    }
}
