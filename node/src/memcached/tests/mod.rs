mod answers;
mod operations;
mod travels;

use larder_protocol::memcached::{Limits, Parsed, Parser, Request};

use super::command::Command;

/// The command of one whole line.
fn command(line: &str) -> Command<'_> {
    match Parser::new().next(&Limits::default(), line.as_bytes()).parsed {
        Parsed::Request(request) => Command::Keyed(request),
        Parsed::Malformed(malformed) => match malformed.drop_key {
            Some(key) => Command::Drop {
                key,
                reply: malformed.reply,
                is_suppressed: malformed.is_suppressed,
            },
            None => panic!("{line:?}: {}", malformed.reply),
        },
        other => panic!("{line:?} is {other:?}"),
    }
}

fn request(line: &str) -> Request<'_> {
    match command(line) {
        Command::Keyed(request) => request,
        other => panic!("{line:?} is {other:?}"),
    }
}
