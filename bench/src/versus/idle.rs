//! What a thousand connections cost that say nothing.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::error::VersusError;
use super::server::Server;
use super::table::{Row, Target};
use super::{Workbench, say};
use crate::host;

const SECTION: &str = "idle";
const CONNECTIONS: usize = 1_000;

/// How long the servers are watched, whatever `--seconds` says: a clock tick must be small beside
/// one percent of it.
const WATCHED: Duration = Duration::from_secs(10);

/// Percent of a processor, at most.
const TARGET_PERCENT: f64 = 1.0;

/// How long a server may take to answer on a new connection.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn measure(bench: &Workbench<'_>) -> Result<Vec<Row>, VersusError> {
    let servers = [bench.larder(&bench.new_directory(), "1G")?, bench.memcached()?];
    let mut connections = Vec::with_capacity(CONNECTIONS * servers.len());
    for server in &servers {
        say(&format!("{SECTION}: {CONNECTIONS} connections to {}", server.name()));
        for _ in 0..CONNECTIONS {
            connections.push(connect(server)?);
        }
        server.settle()?;
    }
    let mut before = Vec::new();
    for server in &servers {
        before.push(server.sample()?.cpu);
    }
    let start = host::now();
    host::sleep(WATCHED);
    let elapsed = host::now() - start;
    let mut percent = Vec::new();
    for (server, before) in servers.iter().zip(before) {
        let used = server.sample()?.cpu.saturating_sub(before);
        percent.push(100.0 * used.as_secs_f64() / elapsed.as_secs_f64());
    }
    drop(connections);
    let what = format!("CPU with {CONNECTIONS} idle connections");
    Ok(vec![
        Row::alone(SECTION, what, "% of a core", &percent[..1])
            .against("memcached", &percent[1..])
            .wanted(Target::FigureAtMost(TARGET_PERCENT)),
    ])
}

/// A connection on which the server has answered once, so that it is past being accepted.
fn connect(server: &Server) -> Result<TcpStream, VersusError> {
    let connect = || {
        let mut stream = TcpStream::connect_timeout(&server.address(), ANSWER_TIMEOUT)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.write_all(b"version\r\n")?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        if line.starts_with("VERSION") {
            Ok(stream)
        } else {
            Err(std::io::Error::other(format!("`{}` answers no `version`", line.escape_debug())))
        }
    };
    connect().map_err(|error: std::io::Error| server.error(format!("a connection: {error}")))
}
