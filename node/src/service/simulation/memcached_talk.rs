//! What a client of memcached's text protocol says, and the very bytes that it must be answered.

use std::collections::BTreeMap;

use larder_runtime::random::Random;

use super::client::Talk;

/// Keys of a client.
const KEYS: usize = 6;

/// A client that has its keys for itself. Replies come in the order of the requests, so what it
/// must be sent is one stream.
pub(super) struct MemcachedTalk {
    number: usize,
    value_bytes_max: usize,
    items: BTreeMap<String, (u32, Vec<u8>)>,
    /// What has to come and has not, and where each of its replies ends, counted from the start of
    /// the connection.
    expected: Vec<u8>,
    ends: Vec<usize>,
    heard: usize,
    promised: usize,
}

impl MemcachedTalk {
    pub(super) fn new(number: usize, value_bytes_max: usize) -> Self {
        Self {
            number,
            value_bytes_max,
            items: BTreeMap::new(),
            expected: Vec::new(),
            ends: Vec::new(),
            heard: 0,
            promised: 0,
        }
    }

    fn key(&self, random: &mut Random) -> String {
        format!("text-{}-{}", self.number, random.index(KEYS))
    }

    /// Notes that these bytes come next.
    fn expect(&mut self, reply: impl AsRef<[u8]>) {
        self.expected.extend_from_slice(reply.as_ref());
        self.promised += reply.as_ref().len();
    }

    fn store(&mut self, random: &mut Random, out: &mut Vec<u8>) {
        let (key, flags) = (self.key(random), random.below(1 << 32) as u32);
        let value = any_value(random, self.value_bytes_max);
        let verb = random.pick(&["set", "set", "set", "add", "replace", "append", "prepend"]);
        let line = format!("{verb} {key} {flags} 0 {}\r\n", value.len());
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(&value);
        out.extend_from_slice(b"\r\n");
        let before = self.items.remove(&key);
        let after = match (verb, before.clone()) {
            ("set", _) | ("add", None) | ("replace", Some(_)) => Some((flags, value)),
            ("append", Some((flags, old))) => Some((flags, [old, value].concat())),
            ("prepend", Some((flags, old))) => Some((flags, [value, old].concat())),
            _ => None,
        };
        let is_too_large = after.as_ref().is_some_and(|(_, value)| value.len() > 600 << 10);
        assert!(!is_too_large, "values do not grow beyond what the node takes");
        self.expect(if after.is_some() { "STORED\r\n" } else { "NOT_STORED\r\n" });
        if let Some(item) = after.or(before) {
            self.items.insert(key, item);
        }
    }

    fn get(&mut self, random: &mut Random, out: &mut Vec<u8>) {
        let keys: Vec<String> = (0..random.count(1..=4)).map(|_| self.key(random)).collect();
        out.extend_from_slice(format!("get {}\r\n", keys.join(" ")).as_bytes());
        for key in keys {
            let Some((flags, value)) = self.items.get(&key).cloned() else { continue };
            self.expect(format!("VALUE {key} {flags} {}\r\n", value.len()));
            self.expect(value);
            self.expect("\r\n");
        }
        self.expect("END\r\n");
    }

    fn meta_get(&mut self, random: &mut Random, out: &mut Vec<u8>) {
        let key = self.key(random);
        out.extend_from_slice(format!("mg {key} v f\r\n").as_bytes());
        match self.items.get(&key).cloned() {
            Some((flags, value)) => {
                self.expect(format!("VA {} f{flags}\r\n", value.len()));
                self.expect(value);
                self.expect("\r\n");
            }
            None => self.expect("EN\r\n"),
        }
    }

    fn delete(&mut self, random: &mut Random, out: &mut Vec<u8>) {
        let key = self.key(random);
        out.extend_from_slice(format!("delete {key}\r\n").as_bytes());
        let is_there = self.items.remove(&key).is_some();
        self.expect(if is_there { "DELETED\r\n" } else { "NOT_FOUND\r\n" });
    }

    /// Counts with a key that holds nothing else.
    fn count(&mut self, random: &mut Random, out: &mut Vec<u8>) {
        let (key, delta) = (format!("count-{}", self.number), random.below(1000));
        out.extend_from_slice(format!("incr {key} {delta}\r\n").as_bytes());
        let Some((_, value)) = self.items.get_mut(&key) else {
            self.expect("NOT_FOUND\r\n");
            out.extend_from_slice(format!("set {key} 0 0 1\r\n0\r\n").as_bytes());
            self.items.insert(key, (0, b"0".to_vec()));
            return self.expect("STORED\r\n");
        };
        let text = std::str::from_utf8(value).expect("digits");
        let number = text.parse::<u64>().expect("a number") + delta;
        *value = number.to_string().into_bytes();
        self.expect(format!("{number}\r\n"));
    }
}

impl Talk for MemcachedTalk {
    fn say(&mut self, random: &mut Random, out: &mut Vec<u8>) {
        // An append would make a long value too long.
        let long: Vec<String> = self
            .items
            .iter()
            .filter(|(_, (_, value))| value.len() > 200 << 10)
            .map(|(key, _)| key.clone())
            .collect();
        if let Some(key) = long.first().filter(|_| random.percent(50)) {
            out.extend_from_slice(format!("delete {key}\r\n").as_bytes());
            self.items.remove(key);
            self.expect("DELETED\r\n");
        } else {
            match random.index(10) {
                0..=3 if long.is_empty() => self.store(random, out),
                0..=5 => self.get(random, out),
                6 => self.meta_get(random, out),
                7 => self.delete(random, out),
                8 if random.percent(70) => self.count(random, out),
                8 => {
                    out.extend_from_slice(b"stats detail on\r\n");
                    self.expect("OK\r\n");
                }
                _ => {
                    out.extend_from_slice(b"mn\r\n");
                    self.expect("MN\r\n");
                }
            }
        }
        self.ends.push(self.promised);
    }

    fn say_goodbye(&mut self, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(b"quit\r\n");
        true
    }

    fn hear(&mut self, bytes: &[u8]) {
        let is_expected = self.expected.starts_with(bytes);
        assert!(
            is_expected,
            "client {} after {} bytes: {} instead of {}",
            self.number,
            self.heard,
            bytes[..bytes.len().min(200)].escape_ascii(),
            self.expected[..self.expected.len().min(200)].escape_ascii()
        );
        self.expected.drain(..bytes.len());
        self.heard += bytes.len();
        self.ends.retain(|end| *end > self.heard);
    }

    fn unanswered(&self) -> usize {
        self.ends.len()
    }
}

/// A value of a few bytes, of some thousand, or of as many as travel by themselves.
pub(super) fn any_value(random: &mut Random, bytes_max: usize) -> Vec<u8> {
    let most = random.pick(&[10, 10, 200, 3000, 100_000]).min(bytes_max);
    let len = random.index(most + 1);
    random.bytes(len)
}
