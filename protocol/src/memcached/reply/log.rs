//! Lines of what happens, which `watch` asks for.

use std::fmt::Display;
use std::io::Write as _;
use std::net::SocketAddr;

use super::dump::put_uri;

/// When something happened, and its number among all that does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStamp {
    /// Microseconds since the Unix epoch.
    pub microseconds: u64,
    /// The number.
    pub number: u64,
}

/// The item that something happened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedItem<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The size class; 0 if there is no item.
    pub class: u32,
    /// The number of the connection that asked.
    pub connection: u64,
    /// The value's length in bytes.
    pub value_bytes: usize,
}

/// A key was looked up.
pub fn logged_get(out: &mut Vec<u8>, stamp: LogStamp, item: &LoggedItem<'_>, is_found: bool) {
    begin(out, stamp, "item_get", Some(item.key));
    put(out, format_args!(" status={}", if is_found { "found" } else { "not_found" }));
    end(out, item);
}

/// A value was stored, or was not: `status` and `verb` as memcached names them, and the seconds
/// that the item may live, 0 for ever.
pub fn logged_store(
    out: &mut Vec<u8>,
    stamp: LogStamp,
    item: &LoggedItem<'_>,
    (status, verb, seconds): (&str, &str, u32),
) {
    begin(out, stamp, "item_store", Some(item.key));
    put(out, format_args!(" status={status} cmd={verb} ttl={seconds}"));
    end(out, item);
}

/// An item was deleted.
pub fn logged_delete(out: &mut Vec<u8>, stamp: LogStamp, item: &LoggedItem<'_>) {
    begin(out, stamp, "deleted", Some(item.key));
    put(out, format_args!(" cmd=delete"));
    end(out, item);
}

/// A connection has begun, or ended for a reason. One without a peer came by a path.
pub fn logged_connection(
    out: &mut Vec<u8>,
    stamp: LogStamp,
    (connection, peer): (u64, Option<SocketAddr>),
    reason: Option<&str>,
) {
    begin(out, stamp, if reason.is_some() { "conn_close" } else { "conn_new" }, None);
    match peer {
        Some(peer) => {
            put(out, format_args!(" rip={} rport={} transport=tcp", peer.ip(), peer.port()));
        }
        None => put(out, format_args!(" rip=unix rport=0 transport=local")),
    }
    if let Some(reason) = reason {
        put(out, format_args!(" reason={reason}"));
    }
    put(out, format_args!(" cfd={connection}\n"));
}

/// So many lines were left out because the client does not read fast enough.
pub fn log_skipped(out: &mut Vec<u8>, lines: u64) {
    put(out, format_args!("skipped={lines}\n"));
}

fn begin(out: &mut Vec<u8>, stamp: LogStamp, what: &str, key: Option<&[u8]>) {
    let LogStamp { microseconds, number } = stamp;
    let (seconds, rest) = (microseconds / 1_000_000, microseconds % 1_000_000);
    put(out, format_args!("ts={seconds}.{rest} gid={number} type={what}"));
    if let Some(key) = key {
        out.extend_from_slice(b" key=");
        put_uri(out, key);
    }
}

fn end(out: &mut Vec<u8>, item: &LoggedItem<'_>) {
    let LoggedItem { class, connection, value_bytes, .. } = item;
    put(out, format_args!(" clsid={class} cfd={connection} size={value_bytes}\n"));
}

fn put(out: &mut Vec<u8>, text: impl Display) {
    write!(out, "{text}").expect("a vector takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_memcacheds() {
        let stamp = LogStamp { microseconds: 1_795_367_987_838_419, number: 2 };
        let item = LoggedItem { key: b"sp%ace", class: 1, connection: 14, value_bytes: 3 };
        let mut out = Vec::new();
        let missed = LoggedItem { class: 0, value_bytes: 0, ..item };
        logged_get(&mut out, stamp, &missed, false);
        logged_get(&mut out, stamp, &item, true);
        logged_store(&mut out, stamp, &item, ("stored", "add", 100));
        logged_delete(&mut out, stamp, &item);
        let peer = Some("127.0.0.1:56776".parse().expect("an address"));
        logged_connection(&mut out, stamp, (17, peer), None);
        logged_connection(&mut out, stamp, (17, peer), Some("normal"));
        logged_connection(&mut out, stamp, (18, None), None);
        log_skipped(&mut out, 4);
        let at = "ts=1795367987.838419 gid=2";
        let expected = [
            format!("{at} type=item_get key=sp%25ace status=not_found clsid=0 cfd=14 size=0"),
            format!("{at} type=item_get key=sp%25ace status=found clsid=1 cfd=14 size=3"),
            format!(
                "{at} type=item_store key=sp%25ace status=stored cmd=add ttl=100 clsid=1 cfd=14 \
                 size=3"
            ),
            format!("{at} type=deleted key=sp%25ace cmd=delete clsid=1 cfd=14 size=3"),
            format!("{at} type=conn_new rip=127.0.0.1 rport=56776 transport=tcp cfd=17"),
            format!(
                "{at} type=conn_close rip=127.0.0.1 rport=56776 transport=tcp reason=normal cfd=17"
            ),
            format!("{at} type=conn_new rip=unix rport=0 transport=local cfd=18"),
            "skipped=4".to_owned(),
        ];
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }
}
