//! Lists of what is stored.

use super::LINE_END;
use super::number::put_decimal;
use crate::memcached::parse::base64;

/// The end of the answer to `lru_crawler mgdump`.
pub const KEYS_END: &[u8] = b"EN\r\n";

/// What `lru_crawler metadump` tells of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpedItem<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The Unix second at which the item is gone; 0 for never.
    pub expiry: u32,
    /// The Unix second at which it was read or written last, as far as is known.
    pub last_access: u32,
    /// The CAS id.
    pub version: u64,
    /// Whether it was read since it was written, as far as is known.
    pub is_fetched: bool,
    /// The size class.
    pub class: u32,
    /// Its size in bytes, with key and overhead.
    pub item_bytes: u64,
}

/// A line of `lru_crawler metadump`. It ends in LF alone.
pub fn dumped_item(out: &mut Vec<u8>, item: &DumpedItem<'_>) {
    out.extend_from_slice(b"key=");
    put_uri(out, item.key);
    out.extend_from_slice(b" exp=");
    if item.expiry == 0 {
        out.extend_from_slice(b"-1");
    } else {
        put_decimal(out, u64::from(item.expiry));
    }
    out.extend_from_slice(b" la=");
    put_decimal(out, u64::from(item.last_access));
    out.extend_from_slice(b" cas=");
    put_decimal(out, item.version);
    out.extend_from_slice(if item.is_fetched { b" fetch=yes" } else { b" fetch=no" });
    out.extend_from_slice(b" cls=");
    put_decimal(out, u64::from(item.class));
    out.extend_from_slice(b" size=");
    put_decimal(out, item.item_bytes);
    out.push(b'\n');
}

/// A line of `lru_crawler mgdump`: a command that reads the item. A key that no command line can
/// have is in base64.
pub fn dumped_key(out: &mut Vec<u8>, key: &[u8]) {
    out.extend_from_slice(b"mg ");
    if key.iter().all(u8::is_ascii_graphic) {
        out.extend_from_slice(key);
    } else {
        base64::encode_into(key, out);
        out.extend_from_slice(b" b");
    }
    out.extend_from_slice(LINE_END);
}

/// A line of `stats cachedump`, of an item with a value of so many bytes that is gone at a Unix
/// second, or 0 for never.
pub fn cache_dumped(out: &mut Vec<u8>, key: &[u8], value_bytes: usize, expiry: u32) {
    out.extend_from_slice(b"ITEM ");
    out.extend_from_slice(key);
    out.extend_from_slice(b" [");
    put_decimal(out, value_bytes as u64);
    out.extend_from_slice(b" b; ");
    put_decimal(out, u64::from(expiry));
    out.extend_from_slice(b" s]");
    out.extend_from_slice(LINE_END);
}

/// Appends bytes as URIs have them: letters, digits and four marks as they are, all others as `%`
/// and two digits.
pub(super) fn put_uri(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.push(b'%');
            out.push(DIGITS[usize::from(byte >> 4)]);
            out.push(DIGITS[usize::from(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn items_are_told_as_memcached_tells_them() {
        let item = DumpedItem {
            key: b"x%20y\xC3\xA9:/?#[]@!$&'()*+,;=-._~",
            expiry: 1_795_368_034,
            last_access: 1_795_367_934,
            version: 8,
            is_fetched: false,
            class: 1,
            item_bytes: 85,
        };
        assert_eq!(
            written(|out| dumped_item(out, &item)),
            "key=x%2520y%C3%A9%3A%2F%3F%23%5B%5D%40%21%24%26%27%28%29%2A%2B%2C%3B%3D-._~ \
             exp=1795368034 la=1795367934 cas=8 fetch=no cls=1 size=85\n"
        );
        let item = DumpedItem { key: b" a\n", expiry: 0, is_fetched: true, ..item };
        let line = written(|out| dumped_item(out, &item));
        assert!(line.starts_with("key=%20a%0A exp=-1 la=") && line.contains(" fetch=yes "));
        assert_eq!(written(|out| cache_dumped(out, b":x", 12, 7)), "ITEM :x [12 b; 7 s]\r\n");
    }

    #[test]
    fn keys_that_no_line_can_have_are_in_base64() {
        for (key, line) in [
            (&b"plain:key"[..], "mg plain:key\r\n"),
            (b" a\n", "mg IGEK b\r\n"),
            (b"a b", "mg YSBi b\r\n"),
            (b"\0\x01\xEC\xFC", "mg AAHs/A== b\r\n"),
            (b"\x7F", "mg fw== b\r\n"),
        ] {
            assert_eq!(written(|out| dumped_key(out, key)), line);
        }
    }
}
