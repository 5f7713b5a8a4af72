//! What the process's descriptors are for.
//!
//! ```text
//!   allowed (the hard limit) = reserved + connections + cores * files of a core
//! ```
//!
//! Connections get what was asked for, and files the rest. Where there is not enough, a quarter of
//! what is not reserved goes to files, because a file that has to be opened again costs every read
//! of it, and connections are fewer than asked for: those beyond are refused.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::StartError;
use crate::limits::{
    CONNECTIONS_MIN, DESCRIPTORS_PER_CORE, DESCRIPTORS_RESERVED, FILES_PER_CORE_MAX,
    FILES_PER_SHARD_MIN,
};

/// Of what is not reserved, files get this part at least.
const FILES_DIVISOR: u64 = 4;

/// Who needs descriptors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    /// Connections asked for.
    pub connections: usize,
    pub cores: usize,
    pub shards: u16,
}

/// How they are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// Connections that are served at a time.
    pub connections: usize,
    /// Files that each core keeps open at most.
    pub files_per_core: usize,
}

impl Needs {
    fn reserved(self) -> u64 {
        DESCRIPTORS_RESERVED + self.cores as u64 * DESCRIPTORS_PER_CORE
    }

    fn files_min(self) -> u64 {
        let shards_of_a_core = u64::from(self.shards).div_ceil(self.cores as u64);
        self.cores as u64 * shards_of_a_core * FILES_PER_SHARD_MIN
    }

    fn files_max(self) -> u64 {
        (self.cores as u64 * FILES_PER_CORE_MAX).max(self.files_min())
    }

    /// With how many the node runs at all.
    fn least(self) -> u64 {
        self.reserved() + self.files_min() + CONNECTIONS_MIN.min(self.connections as u64)
    }

    /// With how many nobody is refused.
    fn wanted(self) -> u64 {
        let connections = self.connections as u64;
        let share = connections.div_ceil(FILES_DIVISOR - 1);
        self.reserved() + connections + share.clamp(self.files_min(), self.files_max())
    }
}

/// Divides `allowed` descriptors.
pub(super) fn divide(allowed: u64, needs: Needs) -> Result<Descriptors, StartError> {
    if allowed < needs.least() {
        let Needs { connections, cores, shards } = needs;
        let (needed, wanted) = (needs.least(), needs.wanted());
        return Err(StartError::Descriptors {
            allowed,
            needed,
            wanted,
            connections,
            cores,
            shards,
        });
    }
    let usable = allowed - needs.reserved();
    let files_share = (usable / FILES_DIVISOR).clamp(needs.files_min(), needs.files_max());
    let connections = (needs.connections as u64).min(usable - files_share);
    let files = (usable - connections).min(needs.files_max());
    Ok(Descriptors {
        connections: usize::try_from(connections).unwrap_or(usize::MAX),
        files_per_core: usize::try_from(files / needs.cores as u64).unwrap_or(usize::MAX),
    })
}

/// Asks for all the descriptors that this process may have, divides them, and says how.
pub(super) fn obtain(needs: Needs) -> Result<Descriptors, StartError> {
    let allowed = raise();
    let divided = divide(allowed, needs)?;
    let Descriptors { connections, files_per_core } = divided;
    tracing::info!(allowed, connections, files_per_core, "descriptors");
    if connections < needs.connections {
        let (asked, wanted) = (needs.connections, needs.wanted());
        tracing::warn!(
            "the limit of open files is {allowed}: {connections} connections are served at a time \
             instead of --max-connections {asked}, and each core keeps {files_per_core} files \
             open; raise the limit with `ulimit -n {wanted}` or LimitNOFILE={wanted}"
        );
    }
    Ok(divided)
}

/// Raises the limit to the hard limit; how many descriptors there may be then.
fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    if limit.current == limit.maximum {
        return current;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs { connections: 10_000, cores: 2, shards: 2 };

    #[test]
    fn everybody_gets_what_was_asked_for_where_there_is_enough() {
        let expected =
            Descriptors { connections: 10_000, files_per_core: FILES_PER_CORE_MAX as usize };
        assert_eq!(divide(1 << 20, NEEDS).expect("enough"), expected);
        let wanted = divide(NEEDS.wanted(), NEEDS).expect("enough");
        assert_eq!(wanted.connections, 10_000, "what the warning asks for is enough");
        let less = divide(NEEDS.wanted() - 10, NEEDS).expect("still runs");
        assert!(less.connections < 10_000, "and not more than enough");
        let many = Needs { cores: 4, shards: 999, ..NEEDS };
        assert_eq!(divide(many.wanted(), many).expect("enough").connections, 10_000);
    }

    #[test]
    fn where_there_is_too_little_connections_are_fewer() {
        let Descriptors { connections, files_per_core } = divide(256, NEEDS).expect("it runs");
        assert!(connections >= 128 && files_per_core >= 24, "{connections}, {files_per_core}");
        for allowed in NEEDS.least()..2000 {
            let Descriptors { connections, files_per_core } = divide(allowed, NEEDS).expect("runs");
            let taken = NEEDS.reserved() + (connections + 2 * files_per_core) as u64;
            assert!(taken <= allowed && taken + 2 > allowed, "{taken} of {allowed}");
            assert!(connections as u64 >= CONNECTIONS_MIN, "{connections} of {allowed}");
            assert!(files_per_core as u64 >= FILES_PER_SHARD_MIN, "{files_per_core} of {allowed}");
        }
        let one = Needs { connections: 1, ..NEEDS };
        assert_eq!(divide(one.least(), one).expect("it runs").connections, 1);
    }

    #[test]
    fn far_too_little_is_an_error_that_says_what_to_do() {
        let error = divide(NEEDS.least() - 1, NEEDS).expect_err("too few").to_string();
        for part in ["2 shards", "--max-connections 10000", "`ulimit -n ", "LimitNOFILE="] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn the_hard_limit_is_asked_for() {
        let allowed = raise();
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), allowed);
        assert_eq!(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX), allowed);
    }
}
