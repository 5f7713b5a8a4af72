//! The parser against arbitrary bytes, and against arbitrary cuts of the same bytes.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const SMALL: Limits = Limits { key_bytes_max: 12, item_bytes_max: 120, line_bytes_max: 64 };

/// What a connection does: keeps what is not consumed, and looks again only when it has as many
/// bytes as were asked for.
struct Connection {
    limits: Limits,
    parser: Parser,
    received: Vec<u8>,
    wanted: usize,
    parsed: Vec<String>,
    is_closed: bool,
}

impl Connection {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            parser: Parser::new(),
            received: Vec::new(),
            wanted: 1,
            parsed: Vec::new(),
            is_closed: false,
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
        while !self.is_closed && self.received.len() >= self.wanted {
            let step = self.parser.next(&self.limits, &self.received);
            let left = self.received.len() - step.consumed;
            self.wanted = 1;
            match step.parsed {
                Parsed::NeedMore { bytes } => {
                    let bound = self.limits.item_bytes_max + self.limits.line_bytes_max + 8;
                    assert!(bytes > left, "asked for {bytes} and has {left}");
                    assert!(bytes <= bound, "asked for {bytes}, more than {bound}");
                    self.wanted = bytes;
                }
                parsed => {
                    assert!(step.consumed > 0, "{parsed:?} without progress");
                    self.is_closed = matches!(parsed, Parsed::Close(_));
                    self.parsed.push(format!("{parsed:?}"));
                }
            }
            self.received.drain(..step.consumed);
        }
    }
}

fn run<'a>(limits: Limits, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut connection = Connection::new(limits);
    for chunk in chunks {
        connection.receive(chunk);
    }
    connection.parsed
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let text = prop::sample::select(vec![
        "get ",
        "gets ",
        "gat ",
        "gats ",
        "set k 0 0 3\r\nabc\r\n",
        "set k 0 0 3\r\nabcd\r\n",
        "set k 0 0 200\r\n",
        "add k 0 0 0 noreply\r\n\r\n",
        "cas k 1 2 3 4\r\nabc\r\n",
        "ms k 2 ",
        "ms k 3 c O1\r\n\r\n\n\r\n",
        "mg ",
        "md k q\r\n",
        "ma k J1 N0\r\n",
        "me k\r\n",
        "mn\r\n",
        "delete ",
        "incr ",
        "touch ",
        "flush_all",
        "verbosity 1",
        "stats",
        "version\r\n",
        "quit",
        "shutdown",
        " ",
        "   ",
        "\r\n",
        "\n",
        "\r",
        "k",
        "key ",
        "thirteenbytes",
        "noreply",
        "-1",
        "0 ",
        "12 ",
        "99999999999 ",
        "b ",
        "v ",
        "Zm9v ",
        "T0 ",
        "O123 ",
        "!",
        " HTTP/1.1",
    ]);
    prop_oneof![
        12 => text.prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..6),
        1 => (0usize..90).prop_map(|count| vec![b' '; count]),
        1 => (0usize..90).prop_map(|count| vec![b'x'; count]),
        1 => (0usize..60).prop_map(|count| b"ab ".repeat(count)),
    ]
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    vec(piece(), 0..24).prop_map(|pieces| pieces.concat())
}

fn cut<'a>(stream: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    places.extend([0, stream.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn cuts_do_not_change_what_is_parsed(
        stream in stream(),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
        with_small_limits: bool,
    ) {
        let limits = if with_small_limits { SMALL } else { LIMITS };
        let whole = run(limits, [&stream[..]]);
        prop_assert_eq!(&run(limits, cut(&stream, &cuts)), &whole);
        prop_assert_eq!(&run(limits, stream.chunks(1)), &whole);
    }

    #[test]
    fn arbitrary_bytes_never_panic(stream in vec(any::<u8>(), 0..600)) {
        let whole = run(SMALL, [&stream[..]]);
        prop_assert_eq!(&run(SMALL, stream.chunks(7)), &whole);
    }

    /// The contract asks callers to wait; one that does not is only slower.
    #[test]
    fn looking_too_early_is_harmless(stream in stream()) {
        let mut parser = Parser::new();
        let (mut start, mut parsed) = (0, Vec::new());
        for end in 1..=stream.len() {
            loop {
                let step = parser.next(&SMALL, &stream[start..end]);
                start += step.consumed;
                match step.parsed {
                    Parsed::NeedMore { .. } => break,
                    Parsed::Close(_) if start == end && !parsed.is_empty() => break,
                    other => parsed.push(format!("{other:?}")),
                }
            }
            if matches!(parser.mode, Mode::Closed(_)) {
                break;
            }
        }
        let mut whole = run(SMALL, [&stream[..]]);
        let is_close = |text: &String| text.starts_with("Close");
        parsed.retain(|text| !is_close(text));
        whole.retain(|text| !is_close(text));
        prop_assert_eq!(parsed, whole);
    }

    #[test]
    fn requests_that_are_written_are_read(
        key in vec(0x21u8..0x7F, 1..251), client_flags: u32, exptime: i32, cas: u64,
        value in vec(any::<u8>(), 0..300), noreply: bool,
    ) {
        let tail = if noreply { " noreply" } else { "" };
        let mut line = b"cas ".to_vec();
        line.extend_from_slice(&key);
        let numbers = format!(" {client_flags} {exptime} {} {cas}{tail}\r\n", value.len());
        line.extend_from_slice(numbers.as_bytes());
        line.extend_from_slice(&value);
        line.extend_from_slice(b"\r\n");
        let store = Store {
            verb: crate::memcached::StoreVerb::Cas,
            key: &key,
            client_flags,
            exptime,
            value: &value,
            cas: Some(cas),
            noreply,
        };
        prop_assert_eq!(parse(&line), [request(Request::Store(store))]);
    }
}

#[test]
fn a_line_of_one_byte_reads_is_searched_once() {
    let mut parser = Parser::new();
    let input = [b'a'; 2_000];
    for end in 1..=input.len() {
        let step = parser.next(&LIMITS, &input[..end]);
        assert_eq!(step.parsed, Parsed::NeedMore { bytes: end + 1 });
        assert_eq!(parser.scanned as usize, end);
    }
}

#[test]
fn a_refused_body_is_skipped_without_being_kept() {
    let mut connection = Connection::new(LIMITS);
    connection.receive(b"set k 0 0 50000000\r\n");
    assert_eq!(connection.parsed.len(), 1, "the error does not wait for the body");
    for _ in 0..500 {
        connection.receive(&[b'\n'; 100_000]);
        assert_eq!(connection.received.len(), 0);
    }
    connection.receive(b"\r\nversion\r\n");
    assert_eq!(connection.parsed[1..], ["Request(Version)"]);
}

#[test]
fn an_endless_multiget_is_consumed_key_by_key() {
    let mut connection = Connection::new(LIMITS);
    connection.receive(b"get ");
    for _ in 0..2_000 {
        connection.receive(&b"k".repeat(250));
        connection.receive(b" ");
        assert!(connection.received.len() <= 2_049 + 251, "{}", connection.received.len());
    }
    connection.receive(b"\r\n");
    assert_eq!(connection.parsed.len(), 2_001);
    assert_eq!(connection.parsed[2_000], "Request(GetEnd)");
}
