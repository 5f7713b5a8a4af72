use super::client::{Client, TestNode, found, noise, set};

/// A request with the opaque `opaq`.
fn message(opcode: u8, cas: u64, extras: &[u8], key: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, opcode];
    bytes.extend((key.len() as u16).to_be_bytes());
    bytes.extend([extras.len() as u8, 0, 0, 0]);
    bytes.extend(((extras.len() + key.len() + value.len()) as u32).to_be_bytes());
    bytes.extend(*b"opaq");
    bytes.extend(cas.to_be_bytes());
    [&bytes, extras, key.as_bytes(), value].concat()
}

fn store(opcode: u8, key: &str, value: &[u8]) -> Vec<u8> {
    message(opcode, 0, &[0, 0, 0, 9, 0, 0, 0, 0], key, value)
}

fn keyed(opcode: u8, key: &str) -> Vec<u8> {
    message(opcode, 0, b"", key, b"")
}

/// Opcode, status and CAS id of the next reply, and its body.
fn reply(client: &mut Client) -> (u8, u16, u64, Vec<u8>) {
    let header = client.receive(24);
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
    assert_eq!((header[0], &header[12..16]), (0x81, &b"opaq"[..]));
    let body = client.receive(number(&header[8..12]) as usize);
    (header[1], number(&header[6..8]) as u16, number(&header[16..]), body)
}

fn ask(client: &mut Client, request: &[u8]) -> (u16, u64, Vec<u8>) {
    client.send(request);
    let (opcode, status, cas, body) = reply(client);
    assert_eq!(opcode, request[1]);
    (status, cas, body)
}

#[test]
fn both_protocols_see_the_same_items() {
    let node = TestNode::start(2);
    let (mut binary, mut text) = (node.connect(), node.connect());
    for key in 0..20 {
        let key = format!("key{key}");
        let (status, version, _) = ask(&mut binary, &store(0x01, &key, b"value"));
        assert!(status == 0 && version > 0);
        text.ask(format!("get {key}\r\n"), format!("VALUE {key} 9 5\r\nvalue\r\nEND\r\n"));
        text.ask(set(&key, b"other"), "STORED\r\n");
        let (status, found, body) = ask(&mut binary, &keyed(0x0C, &key));
        let expected = [b"\0\0\0\0", key.as_bytes(), b"other"].concat();
        assert_eq!((status, body), (0, expected));
        assert!(found > version);
        let compared = message(0x01, version, &[0; 8], &key, b"late");
        assert_eq!(ask(&mut binary, &compared).0, 2);
        let compared = message(0x01, found, &[0; 8], &key, b"in time");
        assert_eq!(ask(&mut binary, &compared).0, 0);
        text.ask(format!("get {key}\r\n"), super::client::found(&key, b"in time"));
    }
    node.stop();
}

#[test]
fn quiet_requests_are_answered_only_where_that_is_news() {
    let node = TestNode::start(2);
    let mut client = node.connect();
    let (mut requests, mut expected) = (Vec::new(), Vec::new());
    for key in 0..300 {
        let key = format!("key{key}");
        requests.extend(store(0x11, &key, b"1"));
        requests.extend(store(0x12, &key, b"2"));
        expected.push((0x12, 2));
        requests.extend(keyed(0x09, "missing"));
        requests.extend(keyed(0x0D, &key));
        expected.push((0x0D, 0));
        requests.extend(message(0x15, 0, &[0; 20], &key, b""));
        requests.extend(keyed(0x14, &key));
        requests.extend(keyed(0x14, &key));
        expected.push((0x14, 1));
    }
    requests.extend(message(0x18, 0, b"", "", b""));
    requests.extend(message(0x0A, 0, b"", "", b""));
    expected.push((0x0A, 0));
    let mut sender = client.share();
    std::thread::scope(|scope| {
        scope.spawn(move || sender.send(&requests));
        for expected in expected {
            let (opcode, status, ..) = reply(&mut client);
            assert_eq!((opcode, status), expected);
        }
    });
    client.send(message(0x17, 0, b"", "", b""));
    assert_eq!(client.rest(), b"");
    node.stop();
}

#[test]
fn requests_in_pieces_and_large_values() {
    let node = TestNode::start(2);
    let mut client = node.connect();
    for byte in store(0x01, "pieces", b"value") {
        client.send([byte]);
    }
    assert_eq!(reply(&mut client).1, 0);
    let value = noise(3, 1_000_000);
    assert_eq!(ask(&mut client, &store(0x01, "large", &value)).0, 0);
    assert_eq!(ask(&mut client, &keyed(0x00, "large")).2[4..], value);
    // One that is too large is passed over, and takes the old item with it.
    let (status, _, text) = ask(&mut client, &store(0x01, "large", &noise(4, 2_000_000)));
    assert_eq!((status, &text[..]), (3, &b"Too large."[..]));
    assert_eq!(ask(&mut client, &keyed(0x00, "large")).0, 1);
    assert_eq!(ask(&mut client, &keyed(0x00, "pieces")).2, b"\0\0\0\x09value");
    node.stop();
}

#[test]
fn statistics_and_what_is_not_known() {
    let node = TestNode::start(2);
    let mut client = node.connect();
    assert_eq!(ask(&mut client, &message(0x20, 0, b"", "", b"")).0, 0x81);
    let plain = message(0x21, 0, b"", "PLAIN", b"\0user\0password");
    assert_eq!(ask(&mut client, &plain), (0x81, 0, b"Unknown command".to_vec()));
    for section in ["", "settings", "items", "slabs", "sizes", "conns", "reset"] {
        client.send(keyed(0x10, section));
        let mut count = 0;
        while !reply(&mut client).3.is_empty() {
            count += 1;
        }
        assert_eq!(count > 0, !matches!(section, "items" | "reset"), "{section}");
    }
    assert_eq!(ask(&mut client, &keyed(0x10, "nonsense")).0, 1);
    let (status, _, version) = ask(&mut client, &message(0x0B, 0, b"", "", b""));
    assert!(status == 0 && version.starts_with(b"1.6."));
    assert_eq!(ask(&mut client, &message(0x1B, 0, &[0; 4], "", b"")).0, 0);
    assert_eq!(ask(&mut client, &keyed(0x00, "")).0, 4);
    assert_eq!(client.rest(), b"", "lengths that are wrong end the connection");
    let mut client = node.connect();
    client.send(set("text", b"value"));
    client.expect("STORED\r\n");
    client.ask("get text\r\n", found("text", b"value"));
    node.stop();
}
