//! What the node logs, and how much of it: settled at the start, and changed while it runs.

use std::fmt;
use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The levels that are asked for by number, as `larder memcached -v` counts them.
pub const LEVELS: [&str; 4] = ["warn", "info", "debug", "trace"];

/// Changes how much is logged.
#[derive(Clone)]
pub struct LogControl(reload::Handle<EnvFilter, Registry>);

impl fmt::Debug for LogControl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("LogControl")
    }
}

impl LogControl {
    /// Begins to log to the standard error stream what `filter` lets pass.
    ///
    /// # Errors
    /// A filter that is none, for people; or that somebody has begun to log before.
    pub fn start(filter: &str) -> Result<Self, String> {
        let parsed = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        let (layer, handle) = reload::Layer::new(parsed);
        let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
        let begun = tracing_subscriber::registry().with(layer).with(lines).try_init();
        begun.map_err(|error| error.to_string())?;
        Ok(Self(handle))
    }

    /// Logs from now on what [`LEVELS`] has at `level`, or at its end.
    pub fn set(&self, level: u32) {
        let name = level_name(level);
        match self.0.reload(EnvFilter::new(name)) {
            Ok(()) => tracing::warn!("logs {name} from now on: a client has asked for it"),
            Err(error) => tracing::warn!("cannot log {name}: {error}"),
        }
    }
}

fn level_name(level: u32) -> &'static str {
    let last = LEVELS.len() - 1;
    LEVELS[usize::try_from(level).unwrap_or(last).min(last)]
}

/// The number of what is logged now.
pub fn level() -> usize {
    match LevelFilter::current() {
        LevelFilter::OFF | LevelFilter::ERROR | LevelFilter::WARN => 0,
        LevelFilter::INFO => 1,
        LevelFilter::DEBUG => 2,
        LevelFilter::TRACE => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_an_end() {
        let names: Vec<_> = [0, 1, 2, 3, 4, u32::MAX].map(level_name).to_vec();
        assert_eq!(names, ["warn", "info", "debug", "trace", "trace", "trace"]);
        assert!(LEVELS.iter().all(|name| EnvFilter::try_new(name).is_ok()));
    }

    #[test]
    fn a_filter_that_is_none_is_refused() {
        assert!(LogControl::start("larder=loud").is_err());
    }
}
