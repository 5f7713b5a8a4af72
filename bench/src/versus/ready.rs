//! The line with which the node says that it is ready.

use std::net::SocketAddr;

/// The addresses in a ready line. Fields are found by key, so more may be added to the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadyLine {
    /// Where memcached's protocol is spoken.
    pub(super) memcached: SocketAddr,
    /// Where the metrics are.
    pub(super) admin: Option<SocketAddr>,
}

/// Understands `larder ready memcached=ADDR:PORT admin=ADDR:PORT ...`; `None` for other lines.
pub(super) fn parse(line: &str) -> Option<ReadyLine> {
    let fields = line.trim().strip_prefix("larder ready ")?;
    let address = |key: &str| {
        let mut values = fields.split_whitespace().filter_map(|field| field.strip_prefix(key));
        values.next()?.strip_prefix('=')?.parse::<SocketAddr>().ok()
    };
    Some(ReadyLine { memcached: address("memcached")?, admin: address("admin") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn addresses_are_found_by_key_in_any_order() {
        let full = "larder ready memcached=127.0.0.1:40001 native=127.0.0.1:40002 \
                    admin=127.0.0.1:40003 shards=2\n";
        let expected = ReadyLine {
            memcached: address("127.0.0.1:40001"),
            admin: Some(address("127.0.0.1:40003")),
        };
        assert_eq!(parse(full), Some(expected));
        let other = "larder ready shards=2 admin=127.0.0.1:40003 memcached=127.0.0.1:40001";
        assert_eq!(parse(other), Some(expected));
        let short = parse("larder ready memcached=[::1]:11211 shards=1").expect("enough");
        assert_eq!(short, ReadyLine { memcached: address("[::1]:11211"), admin: None });
    }

    #[test]
    fn other_lines_are_not_ready_lines() {
        for line in [
            "",
            "larder",
            "larder ready shards=1",
            "larder ready memcached=",
            "larder ready memcached=nowhere",
            "larder ready memcached_tls=127.0.0.1:1",
            "starting memcached=127.0.0.1:1",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
