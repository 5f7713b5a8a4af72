use super::super::token::Token;
use super::*;

const LINES: [&str; 13] = [
    "get key\r\n",
    "gets key\r\n",
    "gat 30 key\r\n",
    "gats -1 key\r\n",
    "mg key\r\n",
    "mg Zm9v b k v O123 t c q\r\n",
    "md key\r\n",
    "md Zm9v b x T1 q k\r\n",
    "ma key\r\n",
    "ma key MD D4 N0 J9 v t\r\n",
    "me key\r\n",
    "me Zm9v b\r\n",
    "ms key 0 T9 F7 c Oabc ME\r\n\r\n",
];

#[test]
fn what_is_kept_is_what_was_sent() {
    for line in LINES {
        let sent = parsed(line);
        let token = Token::new(&Command::of(&sent));
        // Flags are equal but for the spaces around them.
        let (sent, kept) = (format!("{sent:?}"), format!("{:?}", token.parsed()));
        let trimmed = |text: &str| text.replace("32]", "]").replace(" ", "").replace(",]", "]");
        assert_eq!(trimmed(&kept), trimmed(&sent), "{line:?}");
    }
}

#[test]
fn without_its_bytes_a_change_keeps_what_its_answer_needs() {
    for (line, is_noreply) in [
        ("set key 1 2 5\r\nva\r\ne\r\n", false),
        ("add key 1 2 0 noreply\r\n\r\n", true),
        ("cas key 0 0 1 18446744073709551615 noreply\r\nv\r\n", true),
        ("delete key noreply\r\n", true),
        ("incr key 7\r\n", false),
        ("decr key 18446744073709551615 noreply\r\n", true),
        ("touch key 9\r\n", false),
    ] {
        let sent = request(line);
        let sent = Command::Request(&sent);
        let token = Token::new(&sent);
        assert_eq!(token.bytes(), 0, "{line:?}");
        let kept = token.parsed();
        let kept = Command::of(&kept);
        assert_eq!(kept.is_noreply(), is_noreply, "{line:?}");
        let name =
            |command: &Command<'_>| format!("{command:?}").split('{').next().map(str::to_owned);
        assert_eq!(name(&kept), name(&sent));
        assert_eq!(token.value_bytes(), sent.value_bytes());
    }
}

#[test]
fn a_meta_store_keeps_everything_but_its_value() {
    let token = Token::new(&Command::of(&parsed("ms key 5 k c O7\r\nvalue\r\n")));
    let Parsed::Request(Request::MetaSet(set)) = token.parsed() else { panic!("no ms") };
    assert!(set.value.is_empty());
    assert_eq!((set.key.wire(), set.flags.opaque), (&b"key"[..], Some(&b"O7"[..])));
}

#[test]
fn a_dropped_key_is_kept_decoded() {
    let line = format!("ms Zm9v {} b\r\n", 1 << 20);
    let token = Token::new(&Command::of(&parsed(&line)));
    let kept = token.parsed();
    let Command::Drop { key, reply, is_suppressed } = Command::of(&kept) else { panic!("no drop") };
    assert_eq!((key.wire(), key.is_base64(), is_suppressed), (&b"foo"[..], false, false));
    assert_eq!(reply, larder_protocol::memcached::error::TOO_LARGE);
}
