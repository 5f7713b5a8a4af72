use super::super::travel::describe;
use super::*;

const LINES: [&str; 24] = [
    "get key\r\n",
    "gets key\r\n",
    "gat 30 key\r\n",
    "gats -1 key\r\n",
    "set key 1 2 5\r\nva\r\ne\r\n",
    "add key 1 2 0 noreply\r\n\r\n",
    "replace key 4294967295 -2 1\r\nv\r\n",
    "append key 0 0 1\r\nv\r\n",
    "prepend key 0 0 1\r\nv\r\n",
    "cas key 0 0 1 18446744073709551615 noreply\r\nv\r\n",
    "delete key noreply\r\n",
    "incr key 7\r\n",
    "decr key 18446744073709551615 noreply\r\n",
    "touch key 9\r\n",
    "mg key\r\n",
    "mg Zm9v b k v O123 t c q\r\n",
    "ms key 4 T9 F7 c Oabc ME\r\n\r\n\r\n\r\n",
    "ms Zm9v 1 b I C4 q\r\nv\r\n",
    "md key\r\n",
    "md Zm9v b x T1 q k\r\n",
    "ma key\r\n",
    "ma key MD D4 N0 J9 v t\r\n",
    "me key\r\n",
    "me Zm9v b\r\n",
];

#[test]
fn what_arrives_is_what_was_sent() {
    for line in LINES {
        let sent = command(line);
        let mut bytes = b"before".to_vec();
        let description = describe(&sent, true, &mut bytes);
        let arrived = description.command(&bytes[b"before".len()..]);
        // Flags are equal but for the spaces around them.
        let (sent, arrived) = (format!("{sent:?}"), format!("{arrived:?}"));
        let trimmed = |text: &str| text.replace("32]", "]").replace(" ", "").replace(",]", "]");
        assert_eq!(trimmed(&arrived), trimmed(&sent), "{line:?}");
    }
}

#[test]
fn without_its_value_a_store_keeps_everything_else() {
    let line = "ms key 5 k c O7\r\nvalue\r\n";
    let mut bytes = Vec::new();
    let description = describe(&command(line), false, &mut bytes);
    let Command::Keyed(Request::MetaSet(set)) = description.command(&bytes) else {
        panic!("no ms");
    };
    assert!(set.value.is_empty());
    assert_eq!((set.key.wire(), set.flags.opaque), (&b"key"[..], Some(&b"O7"[..])));
}

#[test]
fn a_dropped_key_travels_decoded() {
    let line = format!("ms Zm9v {} b\r\n", 1 << 20);
    let mut bytes = Vec::new();
    let description = describe(&command(&line), true, &mut bytes);
    let Command::Drop { key, reply, is_suppressed } = description.command(&bytes) else {
        panic!("no drop");
    };
    assert_eq!((key.wire(), key.is_base64(), is_suppressed), (&b"foo"[..], false, false));
    assert_eq!(reply, larder_protocol::memcached::error::TOO_LARGE);
}
