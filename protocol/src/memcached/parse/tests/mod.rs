//! Tables of bytes in, requests and errors out.

mod classic;
mod meta;
mod splits;

use super::*;
use crate::memcached::request::GetRequest;

const LIMITS: Limits = Limits { key_bytes_max: 250, item_bytes_max: 1 << 20, line_bytes_max: 2048 };

/// All that `input` says, up to where more is needed or the connection is closed.
fn parse_within<'a>(limits: &Limits, mut input: &'a [u8]) -> Vec<Parsed<'a>> {
    let mut parser = Parser::new();
    let mut all = Vec::new();
    loop {
        let step = parser.next(limits, input);
        input = &input[step.consumed..];
        match step.parsed {
            Parsed::NeedMore { bytes } => {
                assert!(bytes > input.len(), "asked for {bytes} and has {}", input.len());
                return all;
            }
            Parsed::Close(_) => {
                all.push(step.parsed);
                return all;
            }
            Parsed::Request(_) | Parsed::Malformed(_) => {
                assert_ne!(step.consumed, 0, "a step that is no NeedMore makes progress");
                all.push(step.parsed);
            }
        }
    }
}

fn parse(input: &[u8]) -> Vec<Parsed<'_>> {
    parse_within(&LIMITS, input)
}

fn request(request: Request<'_>) -> Parsed<'_> {
    Parsed::Request(request)
}

fn error(reply: &'static str) -> Parsed<'static> {
    Parsed::Malformed(Malformed { reply, is_suppressed: false, drop_key: None })
}

fn suppressed(reply: &'static str) -> Parsed<'static> {
    Parsed::Malformed(Malformed { reply, is_suppressed: true, drop_key: None })
}

fn dropping<'a>(reply: &'static str, is_suppressed: bool, key: WireKey<'a>) -> Parsed<'a> {
    Parsed::Malformed(Malformed { reply, is_suppressed, drop_key: Some(key) })
}

fn get(key: &[u8]) -> Parsed<'_> {
    request(Request::Get(GetRequest { key, with_cas: false, new_exptime: None }))
}

/// Checks each input's result, and that a command after it is understood.
#[track_caller]
fn check(table: &[(&[u8], &[Parsed<'_>])]) {
    for (input, expected) in table {
        let followed = [input, &b"version\r\n"[..]].concat();
        let mut expected = expected.to_vec();
        expected.push(request(Request::Version));
        assert_eq!(parse(&followed), expected, "{}", input.escape_ascii());
    }
}

fn long_key(bytes: usize) -> Vec<u8> {
    vec![b'k'; bytes]
}

#[test]
fn an_idle_connection_costs_a_few_words() {
    assert!(size_of::<Parser>() <= 32, "{} bytes", size_of::<Parser>());
    assert!(size_of::<Step<'_>>() <= 256, "{} bytes", size_of::<Step<'_>>());
}
