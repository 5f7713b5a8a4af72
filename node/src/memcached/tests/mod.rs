mod answers;
mod operations;
mod tokens;

use larder_protocol::memcached::{Limits, Parsed, Parser, Request};

use super::command::Command;

/// What one whole line is.
fn parsed(line: &str) -> Parsed<'_> {
    Parser::new().next(&Limits::default(), line.as_bytes()).parsed
}

fn request(line: &str) -> Request<'_> {
    match parsed(line) {
        Parsed::Request(request) => request,
        other => panic!("{line:?} is {other:?}"),
    }
}
