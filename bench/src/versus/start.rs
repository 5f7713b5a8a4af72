//! The time from the start of the process to its ready line: on nothing, and after a kill.

use super::error::VersusError;
use super::server::Server;
use super::table::{Row, Target};
use super::{Workbench, say};
use crate::load::Settings;

const SECTION: &str = "start";
const VALUE_SIZE: usize = 1_000;
const MEMORY: &str = "1G";

/// GETs that must find what was acknowledged before the kill.
const CHECKED_GETS: u64 = 10_000;

/// Seconds, at most.
const TARGET_EMPTY: f64 = 1.0;
const TARGET_KILLED: f64 = 2.0;

pub(super) fn measure(bench: &Workbench<'_>) -> Result<Vec<Row>, VersusError> {
    let mut empty = Vec::new();
    say(&format!("{SECTION}: empty directory"));
    for _ in 0..bench.args.rounds {
        let server = bench.larder(&bench.new_directory(), MEMORY)?;
        empty.push(server.ready_after().as_secs_f64());
    }
    let keys = bench.args.disk_keys;
    let directory = bench.new_directory();
    let mut server = bench.larder(&directory, MEMORY)?;
    bench.fill(&server, keys, VALUE_SIZE)?;
    let mut killed = Vec::new();
    for round in 1..=bench.args.rounds {
        say(&format!("{SECTION}: after kill -9, round {round}"));
        server.kill();
        server = bench.larder(&directory, MEMORY)?;
        killed.push(server.ready_after().as_secs_f64());
        check_values(bench, &server, keys)?;
    }
    let what = format!("after kill -9 with {keys} keys of {VALUE_SIZE} B");
    Ok(vec![
        Row::alone(SECTION, "empty directory", "s", &empty).wanted(Target::AtMost(TARGET_EMPTY)),
        Row::alone(SECTION, what, "s", &killed).wanted(Target::AtMost(TARGET_KILLED)),
    ])
}

/// A start counts only if what was acknowledged is there afterwards.
fn check_values(bench: &Workbench<'_>, server: &Server, keys: u64) -> Result<(), VersusError> {
    let settings = Settings {
        connections: 50,
        keys,
        value_size: VALUE_SIZE,
        ..bench.counted_settings(server, CHECKED_GETS)
    };
    bench.load_hits(server, &settings).map(drop)
}
