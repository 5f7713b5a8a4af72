//! memcached's meta protocol, for the requests that it has. An item's key is the record id; there
//! is one namespace, and no record has items with keys of their own.
//!
//! Each command carries its id as its opaque token. Replies come in order, so the id is a check,
//! and not needed: memcached leaves it out of misses and errors.

use larder_protocol::native::{
    Condition, DeleteItem, GetItem, IncrementItem, ItemKey, NativeRequest, NativeStatus, Opcode,
    PutItem, PutMode, TouchItem,
};

use super::breakage::Breakage;
use super::codec::Frame;
use crate::clock::unix_seconds;
use crate::connection::{Arrived, VALUE_BYTES_MAX};
use crate::error::ClientError;

/// The longest key, in bytes of the line.
const KEY_BYTES_MAX: usize = 250;

/// The longest line of a reply, in bytes.
const LINE_BYTES_MAX: usize = 2048;

/// Seconds to live above which memcached takes a number for a Unix time.
const RELATIVE_SECONDS_MAX: u32 = 30 * 24 * 3600;

const END: &[u8] = b"\r\n";

/// What an id adds to a command: a space, `O`, and 20 digits.
pub(crate) const ID_BYTES_MAX: usize = 22;

/// Appends an id as an opaque token.
pub(crate) fn put_id(out: &mut Vec<u8>, id: u64) {
    out.extend_from_slice(format!(" O{id}").as_bytes());
}

/// A request as a command.
pub(crate) fn frame(request: &NativeRequest<'_>) -> Result<Frame, ClientError> {
    let opcode = request.opcode() as u8;
    let end = END.to_vec();
    let (head, tail) = match request {
        // `mn` takes no opaque token. To look for a key that nobody has is as cheap.
        NativeRequest::Ping(_) => ("mg larder:ping s".to_owned(), end),
        NativeRequest::Get(GetItem { key, metadata_only, is_quiet }) => {
            let (value, quiet) = (if *metadata_only { "" } else { " v" }, *is_quiet);
            let quiet = if quiet { " u" } else { "" };
            (format!("mg {} c f t s{value}{quiet}", line_key(key)?), end)
        }
        NativeRequest::Touch(TouchItem { key, ttl, with_value }) => {
            let value = if *with_value { " v" } else { "" };
            // memcached goes by the order of the flags: so `t` is what `T` has made it.
            (format!("mg {} T{} c f t s{value}", line_key(key)?, expiry(*ttl)), end)
        }
        NativeRequest::Put(put) => (put_line(put)?, [END, put.value, END].concat()),
        NativeRequest::Delete(DeleteItem { key, condition }) => {
            (format!("md {}{}", line_key(key)?, condition_flag(*condition)?), end)
        }
        NativeRequest::Increment(IncrementItem { key, is_decrement, delta, initial }) => {
            let mode = if *is_decrement { 'D' } else { 'I' };
            let mut line = format!("ma {} M{mode} D{delta} v c", line_key(key)?);
            if let Some((initial, ttl)) = initial {
                line += &format!(" J{initial} N{}", expiry(*ttl));
            }
            (line, end)
        }
        _ => {
            return Err(ClientError::Usage(
                "memcached's protocol has no such request; it needs the native port of a Larder \
                 node"
                    .to_owned(),
            ));
        }
    };
    let is_add = matches!(request, NativeRequest::Put(PutItem { mode: PutMode::IfAbsent, .. }));
    Ok(Frame::Meta { opcode, is_add, head: head.into_bytes(), tail })
}

fn put_line(put: &PutItem<'_>) -> Result<String, ClientError> {
    let PutItem { key, mode, client_flags, ttl, value } = put;
    let (mode, condition) = match mode {
        PutMode::Set(condition) => ("S", condition_flag(*condition)?),
        PutMode::IfAbsent => ("E", String::new()),
        PutMode::IfPresent => ("R", String::new()),
        PutMode::Append => ("A", String::new()),
        PutMode::Prepend => ("P", String::new()),
    };
    // The length stands behind the key, before all flags.
    let key = line_key(key)?;
    let (key, base64) = key.split_once(' ').map_or((key.as_str(), ""), |(key, _)| (key, " b"));
    let (length, expiry) = (value.len(), expiry(*ttl));
    Ok(format!("ms {key} {length}{base64} M{mode} c F{client_flags} T{expiry}{condition}"))
}

fn condition_flag(condition: Condition<'_>) -> Result<String, ClientError> {
    match condition {
        Condition::Any => Ok(String::new()),
        Condition::Version(version) => Ok(format!(" C{version}")),
        Condition::Value(_) => Err(ClientError::Usage(
            "memcached compares no values; it needs the native port of a Larder node".to_owned(),
        )),
    }
}

/// Seconds to live as memcached takes them.
fn expiry(ttl: u32) -> u64 {
    if ttl <= RELATIVE_SECONDS_MAX { ttl.into() } else { unix_seconds() + u64::from(ttl) }
}

/// The key as it stands in a line; in base64, and with the flag that says so, where it has bytes
/// that do not go into a line.
fn line_key(key: &ItemKey<'_>) -> Result<String, ClientError> {
    let refused = |text: &str| Err(ClientError::Usage(text.to_owned()));
    if key.namespace != 0 || !key.item.is_empty() {
        return refused(
            "memcached has neither namespaces nor items of records; it needs the native port of a \
             Larder node",
        );
    }
    let is_plain = key.record.iter().all(u8::is_ascii_graphic);
    let text = if is_plain {
        String::from_utf8_lossy(key.record).into_owned()
    } else {
        base64(key.record)
    };
    if text.len() > KEY_BYTES_MAX {
        return refused(
            "a key for memcached has at most 250 bytes, or 186 if there are some in it that are \
             not printed in ASCII",
        );
    }
    Ok(if is_plain { text } else { text + " b" })
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// A reply of a memcached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MetaReply {
    /// The id, where the reply has one.
    pub id: Option<u64>,
    code: String,
    /// The whole line, for errors.
    line: String,
    version: u64,
    client_flags: u32,
    seconds_left: Option<u32>,
    value_len: Option<u32>,
    value: Vec<u8>,
}

/// The reply at the front of `input`, and its length, as `Wire::reply` says.
pub(crate) fn reply(input: &[u8]) -> Result<(MetaReply, usize), Result<usize, Breakage>> {
    let front = &input[..input.len().min(LINE_BYTES_MAX)];
    let Some(end) = front.windows(2).position(|pair| pair == b"\r\n") else {
        let foreign = || Breakage::Foreign("a line of a reply has no end".to_owned());
        return Err(if front.len() < LINE_BYTES_MAX {
            Ok(input.len() + 1)
        } else {
            Err(foreign())
        });
    };
    let foreign = |what: &str| Err(Breakage::Foreign(what.to_owned()));
    let Ok(line) = std::str::from_utf8(&input[..end]) else {
        return Err(foreign("a line of a reply is no text"));
    };
    let mut tokens = line.split(' ');
    let code = tokens.next().unwrap_or_default();
    let mut reply = MetaReply {
        id: None,
        code: code.to_owned(),
        line: line.to_owned(),
        version: 0,
        client_flags: 0,
        seconds_left: None,
        value_len: None,
        value: Vec::new(),
    };
    let mut length = end + 2;
    match code {
        "VA" => {
            let bytes = tokens.next().and_then(|token| token.parse::<usize>().ok());
            let Some(bytes) = bytes.filter(|bytes| *bytes <= VALUE_BYTES_MAX) else {
                return Err(foreign("it announces a value that is longer than any"));
            };
            let Some(block) = input.get(length..length + bytes + 2) else {
                return Err(Ok(length + bytes + 2));
            };
            let Some(value) = block.strip_suffix(b"\r\n") else {
                return Err(foreign("a value has another length than was announced"));
            };
            reply.value = value.to_vec();
            reply.value_len = Some(bytes as u32);
            length += bytes + 2;
        }
        "HD" | "EN" | "NF" | "NS" | "EX" | "MN" => {}
        "ERROR" | "CLIENT_ERROR" | "SERVER_ERROR" => return Ok((reply, length)),
        _ => return Err(foreign("these are no bytes of memcached's meta protocol")),
    }
    if tokens.all(|token| reply.flag(token).is_some()) {
        Ok((reply, length))
    } else {
        Err(foreign("a flag of a reply is no number"))
    }
}

impl MetaReply {
    /// Reads a returned flag.
    fn flag(&mut self, token: &str) -> Option<()> {
        let (name, rest) = token.split_at_checked(1).unwrap_or(("", ""));
        match name {
            "c" => self.version = rest.parse().ok()?,
            "f" => self.client_flags = rest.parse().ok()?,
            "s" => self.value_len = Some(rest.parse().ok()?),
            "O" => self.id = Some(rest.parse().ok()?),
            "t" if rest == "-1" => self.seconds_left = None,
            "t" => self.seconds_left = Some(rest.parse().ok()?),
            // Marks for clients that share the making of a value, and an echo of `b`.
            _ => {}
        }
        Some(())
    }

    /// As the native reply to the request that `frame` is.
    pub(crate) fn answer(self, frame: &Frame) -> Result<Arrived, Breakage> {
        let opcode = frame.opcode();
        let asked = Opcode::from_code(opcode);
        let mut body = Vec::new();
        let status = match (self.code.as_str(), asked) {
            ("EN" | "HD", Some(Opcode::Ping)) => NativeStatus::Ok,
            ("HD" | "VA", Some(Opcode::Get | Opcode::Touch | Opcode::GetAndTouch)) => {
                body = self.item();
                NativeStatus::Ok
            }
            ("HD", Some(Opcode::Put)) => {
                body.extend_from_slice(&self.version.to_le_bytes());
                NativeStatus::Ok
            }
            ("HD", Some(Opcode::Delete)) => NativeStatus::Ok,
            ("VA", Some(Opcode::Increment)) => {
                body.extend_from_slice(&self.number()?.to_le_bytes());
                body.extend_from_slice(&self.version.to_le_bytes());
                NativeStatus::Ok
            }
            ("NS", Some(Opcode::Put)) => frame.not_stored(),
            ("NS", Some(Opcode::Increment)) => NativeStatus::Full,
            ("EN", Some(Opcode::Get | Opcode::Touch | Opcode::GetAndTouch)) => NativeStatus::Absent,
            ("NF", Some(Opcode::Put | Opcode::Delete | Opcode::Increment)) => NativeStatus::Absent,
            ("EX", Some(_)) => NativeStatus::VersionDiffers,
            ("ERROR" | "CLIENT_ERROR" | "SERVER_ERROR", Some(_)) => {
                body = format!("memcached says: {}", self.line).into_bytes();
                self.refusal()
            }
            _ => return Err(Breakage::Foreign(format!("`{}` is no answer to it", self.code))),
        };
        Ok(Arrived { opcode, status: Some(status), body })
    }

    /// The value as a number.
    fn number(&self) -> Result<u64, Breakage> {
        let number = std::str::from_utf8(&self.value).ok();
        let number = number.and_then(|number| number.trim_end().parse().ok());
        number.ok_or_else(|| Breakage::Foreign("a number is none".to_owned()))
    }

    /// The body of a native reply that shows the item.
    fn item(&self) -> Vec<u8> {
        let expiry = self.seconds_left.map_or(0, |left| unix_seconds() + u64::from(left));
        let mut body = Vec::with_capacity(24 + self.value.len());
        body.extend_from_slice(&self.version.to_le_bytes());
        body.extend_from_slice(&self.client_flags.to_le_bytes());
        body.extend_from_slice(&u32::try_from(expiry).unwrap_or(u32::MAX).to_le_bytes());
        body.extend_from_slice(&self.value_len.unwrap_or(0).to_le_bytes());
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(&self.value);
        body
    }

    /// What an error is in the native protocol's words.
    fn refusal(&self) -> NativeStatus {
        let holds = |text: &str| self.line.contains(text);
        match self.code.as_str() {
            "ERROR" => NativeStatus::UnknownOpcode,
            "CLIENT_ERROR" if holds("non-numeric") => NativeStatus::NotANumber,
            "CLIENT_ERROR" => NativeStatus::Malformed,
            _ if holds("too large") => NativeStatus::TooLarge,
            _ if holds("out of memory") => NativeStatus::Full,
            _ => NativeStatus::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(record: &[u8]) -> ItemKey<'_> {
        ItemKey { namespace: 0, record, item: b"" }
    }

    fn put(mode: PutMode<'static>) -> NativeRequest<'static> {
        let (client_flags, ttl, value) = (7, 60, &b"value"[..]);
        NativeRequest::Put(PutItem { key: key(b"k"), mode, client_flags, ttl, value })
    }

    fn sent(request: &NativeRequest<'_>) -> String {
        let mut out = Vec::new();
        frame(request).expect("a command").put(&mut out, 9, 0);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn commands_are_as_memcached_reads_them() {
        let get = |record| GetItem { key: key(record), metadata_only: false, is_quiet: false };
        assert_eq!(sent(&NativeRequest::Get(get(b"k"))), "mg k c f t s v O9\r\n");
        assert_eq!(sent(&NativeRequest::Get(get(b"a b"))), "mg YSBi b c f t s v O9\r\n");
        let cas = PutMode::Set(Condition::Version(3));
        assert_eq!(sent(&put(cas)), "ms k 5 MS c F7 T60 C3 O9\r\nvalue\r\n");
        assert_eq!(sent(&put(PutMode::IfAbsent)), "ms k 5 ME c F7 T60 O9\r\nvalue\r\n");
        let increment = NativeRequest::Increment(IncrementItem {
            key: key(b"\xff"),
            is_decrement: true,
            delta: 2,
            initial: Some((5, 0)),
        });
        assert_eq!(sent(&increment), "ma /w== b MD D2 v c J5 N0 O9\r\n");
        let delete = DeleteItem { key: key(b"k"), condition: Condition::Any };
        assert_eq!(sent(&NativeRequest::Delete(delete)), "md k O9\r\n");
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        let texts =
            ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(texts, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }

    #[test]
    fn what_memcached_cannot_hold_is_refused() {
        let get = |key| NativeRequest::Get(GetItem { key, metadata_only: false, is_quiet: false });
        let long = [b'k'; 251];
        for key in [
            key(&long),
            key(&[0xFF; 187]),
            ItemKey { namespace: 1, ..key(b"k") },
            ItemKey { item: b"i", ..key(b"k") },
        ] {
            let error = frame(&get(key)).expect_err("no command");
            assert!(matches!(error, ClientError::Usage(_)), "{error}");
        }
        assert!(frame(&get(key(&long[..250]))).is_ok() && frame(&get(key(&[0xFF; 186]))).is_ok());
    }

    /// A reply and its length.
    fn read(bytes: &[u8]) -> (MetaReply, usize) {
        reply(bytes).expect("a reply")
    }

    #[test]
    fn replies_are_read_from_any_front() {
        let whole = b"VA 5 c12 f7 t100 s5 O9\r\nvalue\r\nEN\r\n";
        for cut in 0..31 {
            let needed = reply(&whole[..cut]).expect_err("a part");
            assert!(matches!(needed, Ok(needed) if needed > cut && needed <= 31), "{cut}");
        }
        let (reply, length) = read(whole);
        assert_eq!((reply.id, reply.value_len, length), (Some(9), Some(5), 31));
        let get = GetItem { key: key(b"k"), metadata_only: false, is_quiet: false };
        let get = frame(&NativeRequest::Get(get)).expect("a command");
        let arrived = reply.answer(&get).expect("an item");
        let item = arrived.as_reply().item().expect("an item");
        assert_eq!((item.version, item.client_flags, item.value), (12, 7, &b"value"[..]));
        assert!(u64::from(item.expiry) >= unix_seconds() + 99);
        let absent = read(&whole[31..]).0.answer(&get).expect("a miss");
        assert_eq!(absent.status, Some(NativeStatus::Absent));
    }

    #[test]
    fn answers_have_the_meaning_of_their_request() {
        for (request, line, status) in [
            (put(PutMode::IfAbsent), "NS", NativeStatus::Exists),
            (put(PutMode::Append), "NS", NativeStatus::Absent),
            (put(PutMode::Set(Condition::Version(3))), "EX", NativeStatus::VersionDiffers),
            (put(PutMode::Set(Condition::Version(3))), "NF", NativeStatus::Absent),
            (put(PutMode::IfPresent), "HD c5", NativeStatus::Ok),
            (put(PutMode::IfPresent), "SERVER_ERROR out of memory", NativeStatus::Full),
            (put(PutMode::IfPresent), "SERVER_ERROR object too large", NativeStatus::TooLarge),
            (put(PutMode::IfPresent), "ERROR", NativeStatus::UnknownOpcode),
            (NativeRequest::Ping(b""), "EN", NativeStatus::Ok),
        ] {
            let (reply, _) = read(format!("{line}\r\n").as_bytes());
            let arrived = reply.answer(&frame(&request).expect("a command")).expect("an answer");
            assert_eq!(arrived.status, Some(status), "{request:?} {line}");
        }
        let ping = frame(&NativeRequest::Ping(b"")).expect("a command");
        assert!(read(b"NS\r\n").0.answer(&ping).is_err());
        let put = frame(&put(PutMode::IfAbsent)).expect("a command");
        assert!(read(b"EN\r\n").0.answer(&put).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_reply_or_a_part_or_an_error(
            bytes in r"(VA|HD|EN|SERVER_ERROR) [ -~]{0,20}(\r\n)?[ -~\r\n]{0,40}",
            noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60),
        ) {
            for bytes in [bytes.as_bytes(), &noise] {
                match reply(bytes) {
                    Ok((_, length)) => assert!(length <= bytes.len()),
                    Err(Ok(needed)) => assert!(needed > bytes.len()),
                    Err(Err(_)) => {}
                }
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        let long = [b'x'; LINE_BYTES_MAX];
        for bytes in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"VA 999999999999 c1\r\n",
            b"VA x\r\n",
            b"VA\r\n",
            b"HD cx\r\n",
            b"HD O\r\n",
            b"VA 3 c1\r\nvalue\r\n",
            b"\xff\r\n",
            &long,
        ] {
            let error = reply(bytes).expect_err("no reply");
            assert!(error.is_err(), "{}", bytes.escape_ascii());
        }
    }
}
