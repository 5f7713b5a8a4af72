use super::client::{TestNode, found, set};

#[test]
fn classic_commands() {
    let node = TestNode::start(1);
    let mut client = node.connect();
    client.ask("get k\r\n", "END\r\n");
    client.ask("set k 5 0 3\r\nabc\r\n", "STORED\r\n");
    client.ask("get k\r\n", "VALUE k 5 3\r\nabc\r\nEND\r\n");
    client.ask("add k 0 0 1\r\nx\r\n", "NOT_STORED\r\n");
    client.ask("replace k 6 0 2\r\nde\r\n", "STORED\r\n");
    client.ask("append k 0 0 1\r\nf\r\n", "STORED\r\n");
    client.ask("prepend k 0 0 1\r\nc\r\n", "STORED\r\n");
    client.ask("get k\r\n", "VALUE k 6 4\r\ncdef\r\nEND\r\n");
    client.ask("replace other 0 0 1\r\nx\r\n", "NOT_STORED\r\n");
    client.ask("append other 0 0 1\r\nx\r\n", "NOT_STORED\r\n");
    client.ask("delete k\r\n", "DELETED\r\n");
    client.ask("delete k\r\n", "NOT_FOUND\r\n");
    client.ask("set n 0 0 2\r\n10\r\n", "STORED\r\n");
    client.ask("incr n 5\r\n", "15\r\n");
    client.ask("decr n 20\r\n", "0\r\n");
    client.ask("incr none 1\r\n", "NOT_FOUND\r\n");
    client.ask(set("text", b"abc"), "STORED\r\n");
    let non_numeric = "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
    client.ask("incr text 1\r\n", non_numeric);
    client.ask("touch n 100\r\n", "TOUCHED\r\n");
    client.ask("touch none 100\r\n", "NOT_FOUND\r\n");
    client.ask("gat 0 n\r\n", "VALUE n 0 1\r\n0\r\nEND\r\n");
    client.ask("mg n h\r\n", "HD h1\r\n");
    client.ask("gat -1 n\r\n", "VALUE n 0 1\r\n0\r\nEND\r\n");
    client.ask("get n\r\n", "END\r\n");
    client.ask("set gone 0 -1 1\r\nx\r\n", "STORED\r\n");
    client.ask("get gone\r\n", "END\r\n");
    client.ask("set quiet 0 0 1 noreply\r\nx\r\n", "");
    client.ask("get quiet\r\n", found("quiet", b"x"));
    client.ask("version\r\n", format!("VERSION 1.6.45-larder-{}\r\n", env!("CARGO_PKG_VERSION")));
    client.ask("verbosity 1\r\n", "OK\r\n");
    client.ask("lru mode flat\r\n", "OK\r\n");
    client.ask("lru mode flat noreply\r\n", "");
    client.ask("stats cachedump 1\r\n", "CLIENT_ERROR bad command line\r\n");
    client
        .ask("cache_memlimit 7\r\n", "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n");
    client.ask("nonsense\r\n", "ERROR\r\n");
    client.ask("shutdown\r\n", "SERVER_ERROR: shutdown not enabled\r\n");
    client.send("get quiet\r\nquit\r\nget quiet\r\n");
    assert_eq!(client.rest(), found("quiet", b"x"));
    node.stop();
}

#[test]
fn compare_and_swap() {
    let node = TestNode::start(1);
    let mut client = node.connect();
    client.ask("cas k 0 0 1 7\r\nx\r\n", "NOT_FOUND\r\n");
    client.ask(set("k", b"first"), "STORED\r\n");
    client.send("gets k\r\n");
    let answer = client.lines_until("END");
    let version: u64 = answer
        .lines()
        .next()
        .and_then(|line| line.rsplit(' ').next())
        .and_then(|digits| digits.parse().ok())
        .expect("a CAS id");
    client.ask(format!("cas k 0 0 6 {version}\r\nsecond\r\n"), "STORED\r\n");
    client.ask(format!("cas k 0 0 5 {version}\r\nthird\r\n"), "EXISTS\r\n");
    client.ask("get k\r\n", found("k", b"second"));
    client.ask("ms k 1 C1\r\nx\r\n", "EX\r\n");
    node.stop();
}

#[test]
fn meta_commands() {
    let node = TestNode::start(1);
    let mut client = node.connect();
    client.ask("mg k v\r\n", "EN\r\n");
    client.ask("mg k v q\r\n", "");
    client.ask("ms k 5 T60 F9\r\nvalue\r\n", "HD\r\n");
    client.ask("mg k v f s k Oabc\r\n", "VA 5 f9 s5 kk Oabc\r\nvalue\r\n");
    client.ask("ms Zm9v 3 b q\r\nbar\r\n", "");
    client.ask("mg Zm9v b k v\r\n", "VA 3 kZm9v b\r\nbar\r\n");
    client.ask("get foo\r\n", found("foo", b"bar"));
    client.ask("ms k 1 ME\r\nx\r\n", "NS\r\n");
    client.ask("ms k 1 MA\r\n!\r\n", "HD\r\n");
    client.ask("mg k v\r\n", "VA 6\r\nvalue!\r\n");
    client.ask("ma n\r\n", "NF\r\n");
    client.ask("ma n N0 J13 v\r\n", "VA 2\r\n13\r\n");
    client.ask("ma n D7 v\r\n", "VA 2\r\n20\r\n");
    client.ask("ma n MD D50 v t\r\n", "VA 1 t-1\r\n0\r\n");
    client.ask("md n q\r\n", "");
    client.ask("md n\r\n", "NF\r\n");
    // A missing item is created once, and only one client is told to fill it.
    client.ask("mg v N30 t\r\n", "HD t30 W\r\n");
    client.ask("mg v N30 s\r\n", "HD s0 Z\r\n");
    // A stale item is served, and one client is told to recache it.
    client.ask(set("s", b"old"), "STORED\r\n");
    client.ask("md s I T30\r\n", "HD\r\n");
    client.ask("mg s v\r\n", "VA 3 X W\r\nold\r\n");
    client.ask("mg s v\r\n", "VA 3 Z X\r\nold\r\n");
    client.ask(set("s", b"new"), "STORED\r\n");
    client.ask("mg s v\r\n", "VA 3\r\nnew\r\n");
    client.ask("md s x\r\n", "HD\r\n");
    client.ask("mg s v\r\n", "VA 0\r\n\r\n");
    client.send("me s\r\n");
    let line = client.lines_until("");
    assert!(line.starts_with("ME s exp=-1 la=") && line.contains(" fetch=yes "), "{line}");
    client.ask("me none\r\n", "EN\r\n");
    client.ask("mg k v zz\r\n", "CLIENT_ERROR invalid flag\r\n");
    node.stop();
}

#[test]
fn statistics_are_gathered_from_all_cores() {
    let node = TestNode::start(2);
    let mut client = node.connect();
    for key in 0..50 {
        client.ask(set(&format!("key{key}"), b"v"), "STORED\r\n");
        client.ask(format!("get key{key}\r\n"), found(&format!("key{key}"), b"v"));
    }
    client.ask("get none\r\n", "END\r\n");
    client.send("stats\r\n");
    let text = client.lines_until("END");
    for line in [
        "STAT cmd_get 51\r\n",
        "STAT cmd_set 50\r\n",
        "STAT get_hits 50\r\n",
        "STAT get_misses 1\r\n",
        "STAT curr_connections 1\r\n",
        "STAT threads 2\r\n",
        "STAT curr_items 50\r\n",
        "STAT limit_maxbytes 201326592\r\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    client.send("stats settings\r\n");
    assert!(client.lines_until("END").contains("STAT item_size_max 1048576\r\n"));
    client.send("stats items\r\n");
    assert!(client.lines_until("END").contains("STAT items:1:number 50\r\n"));
    client.ask("stats reset\r\n", "RESET\r\n");
    client.send("stats\r\n");
    assert!(client.lines_until("END").contains("STAT cmd_get 0\r\n"));
    client.ask("stats nonsense\r\n", "ERROR\r\n");
    node.stop();
}
