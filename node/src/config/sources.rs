//! Where options come from, and which source wins.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches, Parser};

use super::options::{Options, ServeArgs};
use super::{Config, Size};

/// What environment variables start with.
const PREFIX: &str = "LARDER_";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not TOML: {message}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// A key that is no option.
    #[error("{origin}: unknown option `{name}`{}", nearest_text(.nearest))]
    Unknown {
        /// The file, or `environment`.
        origin: String,
        /// The key.
        name: String,
        /// The option that looks most like it.
        nearest: Option<String>,
    },
    /// A value that the option does not take.
    #[error("{origin}: {name} = `{value}`: {message}")]
    Value {
        /// The file, or `environment`.
        origin: String,
        /// The key.
        name: String,
        /// The value.
        value: String,
        /// What is wrong with it.
        message: String,
    },
}

fn nearest_text(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or(String::new(), |nearest| format!("; did you mean `{nearest}`?"))
}

/// The options alone, as a command line of their own.
#[derive(Parser)]
#[command(name = "larder", no_binary_name = true, disable_help_flag = true)]
struct OptionsAlone {
    #[command(flatten)]
    options: Options,
}

/// The settings that follow from the command line, the environment and the file that `--config`
/// or `LARDER_CONFIG` names.
///
/// # Errors
/// A file that cannot be read, a key that is no option, a value that an option does not take.
pub fn load(
    args: &ServeArgs,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Config, ConfigError> {
    let mut variables: Vec<(String, String)> = environment
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?.to_owned(), value)))
        .collect();
    variables.sort();
    let named = variables.iter().find(|(name, _)| name == "CONFIG").map(|(_, value)| value);
    let file = args.config.clone().or_else(|| named.map(PathBuf::from));
    let known = |name: &str| option_names().any(|known| option_name(name) == known);
    let variables = variables.into_iter().filter(|(name, _)| known(name)).collect::<Vec<_>>();
    let from_environment = parse_pairs("environment", PREFIX, &variables)?;
    let from_file = file.map(|path| read_file(&path)).transpose()?.unwrap_or_default();
    Ok(resolve(&[args.options.clone(), from_environment, from_file]))
}

/// The command line's spelling of a key.
fn option_name(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

fn option_names() -> impl Iterator<Item = String> {
    let command = OptionsAlone::command();
    let names: Vec<String> =
        command.get_arguments().filter_map(|a| a.get_long().map(str::to_owned)).collect();
    names.into_iter()
}

#[allow(clippy::disallowed_methods, reason = "the configuration is read once, before any core")]
fn read_file(path: &Path) -> Result<Options, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse_file(path, &text)
}

/// The options in a file's text.
pub(super) fn parse_file(path: &Path, text: &str) -> Result<Options, ConfigError> {
    let syntax = |message| ConfigError::Syntax { path: path.to_owned(), message };
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| syntax(error.to_string().trim_end().to_owned()))?;
    let pairs: Vec<(String, String)> = table
        .into_iter()
        .map(|(name, value)| match value {
            toml::Value::String(text) => (name, text),
            other => (name, other.to_string()),
        })
        .collect();
    parse_pairs(&path.display().to_string(), "", &pairs)
}

/// Reads the values as the command line would.
fn parse_pairs(
    origin: &str,
    prefix: &str,
    pairs: &[(String, String)],
) -> Result<Options, ConfigError> {
    for (name, value) in pairs {
        let argument = format!("--{}={value}", option_name(name));
        if let Err(error) = OptionsAlone::try_parse_from([argument]) {
            return Err(explain(origin, &format!("{prefix}{name}"), value, &error));
        }
    }
    let arguments = pairs.iter().map(|(name, value)| format!("--{}={value}", option_name(name)));
    let matches = OptionsAlone::command().try_get_matches_from(arguments);
    let alone = matches.and_then(|matches| OptionsAlone::from_arg_matches(&matches));
    alone.map(|alone| alone.options).map_err(|error| explain(origin, prefix, "", &error))
}

fn explain(origin: &str, name: &str, value: &str, error: &clap::Error) -> ConfigError {
    let (origin, name) = (origin.to_owned(), name.to_owned());
    if error.kind() == clap::error::ErrorKind::UnknownArgument {
        let nearest = match error.get(ContextKind::SuggestedArg) {
            Some(ContextValue::String(nearest)) => Some(nearest),
            Some(ContextValue::Strings(all)) => all.first(),
            _ => None,
        };
        let key = |option: &String| {
            let option = option.split(['=', ' ']).next().unwrap_or(option);
            option.trim_start_matches('-').replace('-', "_")
        };
        return ConfigError::Unknown { origin, name, nearest: nearest.map(key) };
    }
    use std::error::Error;
    let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    ConfigError::Value { origin, name, value: value.to_owned(), message }
}

/// Takes each option from the first source that has it.
pub(super) fn resolve(sources: &[Options; 3]) -> Config {
    let default = Config::default();
    macro_rules! first {
        ($option:ident) => {
            sources.iter().find_map(|source| source.$option.clone())
        };
    }
    // A source that asks for a level or for verbosity hides both options of the later ones.
    let log_level = sources.iter().find_map(|source| {
        let verbose = source.verbose.filter(|verbose| *verbose).map(|_| "debug".to_owned());
        source.log_level.clone().or(verbose)
    });
    Config {
        data_dir: first!(data_dir).unwrap_or(default.data_dir),
        memory: first!(memory).unwrap_or(default.memory),
        raise_memory: default.raise_memory,
        shards: first!(shards),
        cores: first!(cores),
        cpus: first!(cpus),
        cpu_plan: first!(cpu_plan),
        runtime: first!(runtime).unwrap_or(default.runtime),
        listen: first!(listen).unwrap_or(default.listen),
        memcached_port: first!(memcached_port).unwrap_or(default.memcached_port),
        has_memcached_port: default.has_memcached_port,
        unix_socket: first!(unix_socket),
        unix_socket_mode: first!(unix_socket_mode).unwrap_or(default.unix_socket_mode),
        core_ports: first!(core_ports),
        native_port: first!(native_port).unwrap_or(default.native_port),
        native_core_ports: first!(native_core_ports),
        admin_port: first!(admin_port).unwrap_or(default.admin_port),
        durability: first!(durability).unwrap_or(default.durability),
        compress_from: first!(compress_from).unwrap_or(default.compress_from),
        read_target_us: first!(read_target_us).unwrap_or(default.read_target_us),
        write_target_us: first!(write_target_us).unwrap_or(default.write_target_us),
        recovery_log: first!(recovery_log).unwrap_or(default.recovery_log),
        max_space_amp: first!(max_space_amp).unwrap_or(default.max_space_amp),
        disk_limit: first!(disk_limit),
        gc_rate: first!(gc_rate),
        scrub_rate: first!(scrub_rate).unwrap_or(default.scrub_rate),
        io_properties: first!(io_properties),
        calibrate: first!(calibrate).unwrap_or(default.calibrate),
        io_shares: first!(io_shares),
        io_caps: first!(io_caps),
        io_latency_goal: first!(io_latency_goal),
        max_item_size: first!(max_item_size).unwrap_or(Size(default.max_item_size.0)),
        max_connections: first!(max_connections).unwrap_or(default.max_connections),
        idle_timeout: first!(idle_timeout).unwrap_or(default.idle_timeout),
        stall_bound: first!(stall_bound).unwrap_or(default.stall_bound),
        idempotency_window: first!(idempotency_window).unwrap_or(default.idempotency_window),
        staging_window: first!(staging_window).unwrap_or(default.staging_window),
        enable_shutdown: first!(enable_shutdown).unwrap_or(default.enable_shutdown),
        disable_flush_all: first!(disable_flush_all).unwrap_or(default.disable_flush_all),
        disable_dumps: first!(disable_dumps).unwrap_or(default.disable_dumps),
        disable_watch: first!(disable_watch).unwrap_or(default.disable_watch),
        prefix_delimiter: default.prefix_delimiter,
        auth_file: first!(auth_file),
        log_level: log_level.unwrap_or(default.log_level),
    }
}
