//! What the whole-system tests stand on: servers as processes, a blocking client, and the rules of
//! the tree ([`tidy`]). The tests themselves are in `tests/system`.
//!
//! Environment variables steer them; without any, they run small:
//!
//! | variable | meaning |
//! |---|---|
//! | `LARDER_BINARY` | test this server instead of building one |
//! | `LARDER_FULL_DISK_MIB` | how large the disk is that a test fills, 1,536 by default |
//! | `LARDER_FUZZ_SECONDS` | how long each fuzz target runs; by default some thousand inputs |
//! | `LARDER_KILLS` | how often the crash tests kill the server, 3 by default |
//! | `LARDER_SEED` | the seed to run with again, as a failed test printed it |
//! | `LARDER_TEST_PYTHON` | a Python that has python-memcached and pymemcache |
//! | `LARDER_TIDY_BLESS` | `1` rewrites the documents' checksums instead of comparing them |

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "these tests stand outside the node: they own files, threads, time and processes"
)]

pub mod binary;
pub mod client;
pub mod file_system;
pub mod linear;
pub mod memcached;
pub mod node;
pub mod process;
pub mod scratch;
pub mod seed;
pub mod tidy;

use std::io::Write as _;

/// Says that a test, or a part of it, does not run here, and why. Written past the test runner's
/// capture, which would hide it: a skipped test counts as passed.
pub fn skip(what: &str, why: &str) {
    // Nobody to tell if stderr is closed.
    let _ = writeln!(std::io::stderr(), "skipped: {what}: {why}");
}
