//! Who may use the memcached port, where a file of names and passwords says so: the first command
//! of a connection must be a `set` of any key with the value `<name> <password>`.
//!
//! Until then every line is answered with an error and asks nothing of a shard. What decides is the
//! bytes of the connection alone, so they may be looked at again.

use std::hint::black_box;
use std::path::Path;

use larder_protocol::memcached::{
    Limits, Malformed, Parsed, Request, Step, StoreVerb, error, reply,
};

/// The longest file of names and passwords, in bytes.
const FILE_BYTES_MAX: usize = 64 << 10;

/// The longest item of a client that is not known, in bytes: it has a name and a password.
const ITEM_BYTES_MAX: usize = 1 << 10;

/// Names and passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct Gate(Vec<Pair>);

/// A name and its password.
type Pair = (Box<[u8]>, Box<[u8]>);

impl std::fmt::Debug for Gate {
    /// Without the passwords.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Gate({} names)", self.0.len())
    }
}

/// What is told to a client that has given no password, or a wrong one.
const UNKNOWN: &str = "CLIENT_ERROR unauthenticated";
const WRONG: &str = "CLIENT_ERROR authentication failure";
const NO_PASSWORD: &str = "CLIENT_ERROR bad authentication token format";
const BAD_END: &str = "CLIENT_ERROR bad command line termination";

impl Gate {
    /// Reads a file of lines `name:password`.
    ///
    /// # Errors
    /// What is wrong with the file, for people. No password is told.
    #[allow(clippy::disallowed_methods, reason = "it is read once, before any core runs")]
    pub fn read(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > FILE_BYTES_MAX {
            return Err(format!("it is longer than {FILE_BYTES_MAX} bytes"));
        }
        let mut pairs = Vec::new();
        for (number, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let colon = line.iter().position(|&byte| byte == b':');
            let Some((name, password)) = colon.map(|at| (&line[..at], &line[at + 1..])) else {
                return Err(format!("line {} is not NAME:PASSWORD", number + 1));
            };
            let is_word = |word: &[u8]| !word.is_empty() && !word.contains(&b' ');
            if !is_word(name) || !is_word(password) {
                let what = "has an empty name or password, or a space in one";
                return Err(format!("line {} {what}", number + 1));
            }
            pairs.push((name.into(), password.into()));
        }
        if pairs.is_empty() { Err("it has no names".to_owned()) } else { Ok(Self(pairs)) }
    }

    /// What a client that is not known may send.
    pub(super) fn limits(&self, limits: &Limits) -> Limits {
        Limits { item_bytes_max: limits.item_bytes_max.min(ITEM_BYTES_MAX), ..*limits }
    }

    /// What a step of such a client becomes, and whether the client is known from then on.
    pub(super) fn judge<'a>(&self, step: Step<'a>) -> (Step<'a>, bool) {
        let (reply, is_suppressed) = match step.parsed {
            Parsed::NeedMore { .. } | Parsed::Close(_) => return (step, false),
            // The end of the line is answered.
            Parsed::Request(Request::Get(_)) => (UNKNOWN, true),
            Parsed::Request(Request::Store(store)) if store.verb == StoreVerb::Set => {
                (self.answer(store.value), false)
            }
            Parsed::Malformed(Malformed { reply: error::BAD_DATA_CHUNK, .. }) => (BAD_END, false),
            Parsed::Request(_) | Parsed::Malformed(_) => (UNKNOWN, false),
        };
        let parsed = Parsed::Malformed(Malformed { reply, is_suppressed, drop_key: None });
        (Step { parsed, ..step }, reply == reply::STORED_LINE)
    }

    fn answer(&self, value: &[u8]) -> &'static str {
        let mut words = value.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
        let (Some(name), Some(password)) = (words.next(), words.next()) else {
            return NO_PASSWORD;
        };
        // All are compared, so that the time tells nothing of where one differs.
        let known = self.0.iter().fold(false, |known, (a_name, a_password)| {
            known | (is_same(a_name, name) & is_same(a_password, password))
        });
        if known { reply::STORED_LINE } else { WRONG }
    }
}

/// Whether the bytes are the same; takes as long for any that have the same length.
fn is_same(left: &[u8], right: &[u8]) -> bool {
    let difference = left.iter().zip(right).fold(0, |all, (left, right)| all | (left ^ right));
    left.len() == right.len() && black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use larder_protocol::memcached::Parser;

    use super::*;

    fn gate() -> Gate {
        Gate::parse(b"foo:bar\r\nbaaaz:quux").expect("good lines")
    }

    /// The line that is answered, and whether the client is known then.
    fn judged(line: &[u8]) -> (Option<&'static str>, bool) {
        let limits = gate().limits(&Limits::default());
        let (step, is_known) = gate().judge(Parser::new().next(&limits, line));
        let Parsed::Malformed(malformed) = step.parsed else { panic!("{:?} is kept", step.parsed) };
        assert_eq!(malformed.drop_key, None, "no shard is asked");
        ((!malformed.is_suppressed).then_some(malformed.reply), is_known)
    }

    #[test]
    fn only_a_name_with_its_password_opens() {
        for value in ["foo bar", "baaaz quux", " foo  bar ", "foo bar and more"] {
            let line = format!("set any 7 9 {}\r\n{value}\r\n", value.len());
            assert_eq!(judged(line.as_bytes()), (Some("STORED"), true), "{value:?}");
        }
        for (value, reply) in [
            ("foo bab", WRONG),
            ("foo ba", WRONG),
            ("foo quux", WRONG),
            ("bar foo", WRONG),
            ("hi", NO_PASSWORD),
            ("", NO_PASSWORD),
        ] {
            let line = format!("set any 7 9 {} noreply\r\n{value}\r\n", value.len());
            assert_eq!(judged(line.as_bytes()), (Some(reply), false), "{value:?}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let too_large = format!("set k 0 0 {}\r\n", 100_000);
        for line in [
            "get foo bar\r\n",
            "add foo 0 0 7\r\nfoo bar\r\n",
            "ms foo 7\r\nfoo bar\r\n",
            "delete foo noreply\r\n",
            "flush_all noreply\r\n",
            "mg foo v q\r\n",
            "mn\r\n",
            "version\r\n",
            "quit\r\n",
            "shutdown\r\n",
            "stats\r\n",
            "nonsense\r\n",
            &too_large,
        ] {
            let (reply, is_known) = judged(line.as_bytes());
            assert!(!is_known && reply.is_none_or(|reply| reply == UNKNOWN), "{line:?}");
            // The end of a retrieval's line answers it.
            assert_eq!(reply.is_none(), line.starts_with("get"));
        }
        assert_eq!(judged(b"set foo 0 0 7\r\nfoo bar--"), (Some(BAD_END), false));
    }

    #[test]
    fn files() {
        let refused = |bytes: &[u8]| Gate::parse(bytes).expect_err("it is refused");
        assert_eq!(refused(b""), "it has no names");
        assert_eq!(refused(b"a:b\nnobody\n"), "line 2 is not NAME:PASSWORD");
        assert!(refused(b"a:\n").starts_with("line 1 has an empty"));
        assert!(refused(b"a:b c\n").contains("a space"));
        assert!(refused(&[b'a'; FILE_BYTES_MAX + 1]).contains("longer than 65536 bytes"));
        assert!(Gate::parse(b"a:b:c\n").expect("a colon in it").answer(b"a b:c") == "STORED");
        assert_eq!(format!("{:?}", gate()), "Gate(2 names)");
        let error = Gate::read(Path::new("/nowhere/at/all")).expect_err("there is no such file");
        assert!(error.contains("No such file"), "{error}");
    }
}
