//! What the server answers to input that is wrong, and whether it then goes on.

use larder_tests::client::Client;
use larder_tests::node::{Node, NodeOptions};
use larder_tests::scratch::Scratch;

const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format\r\n";

/// Input, its answer to the letter. The connection must go on.
fn answered() -> Vec<(Vec<u8>, String)> {
    let long_key = "k".repeat(251);
    // 20 digits, or bytes, more than the largest item.
    let too_large = "x".repeat(1 << 20);
    let length = too_large.len();
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut row = |input: &str, answer: &str| rows.push((input.to_owned(), answer.to_owned()));

    row("bogus\r\n", "ERROR\r\n");
    row("SET a 0 0 1\r\n", "ERROR\r\n");
    row("     \r\n", "ERROR\r\n");
    row("\r\n", BAD_FORMAT);
    row("\n", BAD_FORMAT);
    row("mn\n", BAD_FORMAT);

    row("get\r\n", BAD_FORMAT);
    row("gat 1\r\n", BAD_FORMAT);
    row("touch a\r\n", BAD_FORMAT);
    row("incr a\r\n", BAD_FORMAT);
    row("set a 0 0\r\n", BAD_FORMAT);
    row(&format!("get {long_key}\r\n"), BAD_FORMAT);
    row(&format!("delete {long_key}\r\n"), BAD_FORMAT);
    row(&format!("mg {long_key} v\r\n"), BAD_FORMAT);
    row(&format!("set {long_key} 0 0 1\r\nx\r\n"), BAD_FORMAT);
    row("set a x 0 1\r\nx\r\n", BAD_FORMAT);
    row("set a 0 x 1\r\nx\r\n", BAD_FORMAT);
    row("cas a 0 0 1 x\r\nx\r\n", BAD_FORMAT);

    // Nothing says how long the block is: it is read as commands.
    row("set a 0 0 x\r\nversio\r\n", &format!("{BAD_FORMAT}ERROR\r\n"));
    row("set a 0 0 -1\r\nversio\r\n", &format!("{BAD_FORMAT}ERROR\r\n"));
    row("set a 0 0 2147483646\r\nversio\r\n", &format!("{BAD_FORMAT}ERROR\r\n"));
    row("set a 0 0 99999999999999999999\r\nversio\r\n", &format!("{BAD_FORMAT}ERROR\r\n"));

    row("set a 0 0 3\r\nabcde", "CLIENT_ERROR bad data chunk\r\n");
    row("set a 0 0 3\r\nabc\n\n", "CLIENT_ERROR bad data chunk\r\n");
    row(
        &format!("set big 0 0 1\r\nx\r\nset big 0 0 {length}\r\n{too_large}\r\nget big\r\n"),
        "STORED\r\nSERVER_ERROR object too large for cache\r\nEND\r\n",
    );
    row(
        &format!("set big 0 0 1\r\nx\r\nms big {length} ME\r\n{too_large}\r\nmg big v\r\n"),
        "STORED\r\nSERVER_ERROR object too large for cache\r\nEN\r\n",
    );
    row(
        &format!("set big 0 0 1\r\nx\r\nadd big 0 0 {length}\r\n{too_large}\r\nget big\r\n"),
        "STORED\r\nSERVER_ERROR object too large for cache\r\nVALUE big 0 1\r\nx\r\nEND\r\n",
    );

    rows.extend(answered_tokens());
    rows.into_iter().map(|(input, answer)| (input.into_bytes(), answer)).collect()
}

/// Of these, what is wrong in a number or a flag.
fn answered_tokens() -> Vec<(String, String)> {
    let long_opaque = "o".repeat(32);
    let flags = " s".repeat(21);
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut row = |input: &str, answer: &str| rows.push((input.to_owned(), answer.to_owned()));

    let non_numeric = "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
    row(
        "set t 0 0 1\r\nx\r\nincr t 1\r\nma t\r\n",
        &format!("STORED\r\n{non_numeric}{non_numeric}"),
    );
    row("incr a x\r\n", "CLIENT_ERROR invalid numeric delta argument\r\n");
    row("decr a -1\r\n", "CLIENT_ERROR invalid numeric delta argument\r\n");
    row("ma a Dx\r\n", "CLIENT_ERROR invalid numeric delta value\r\n");
    row("ma a N0 Jx\r\n", "CLIENT_ERROR invalid numeric initial value\r\n");
    row("touch a x\r\n", "CLIENT_ERROR invalid exptime argument\r\n");
    row("gat x a\r\n", "CLIENT_ERROR invalid exptime argument\r\n");
    row("flush_all x\r\n", "CLIENT_ERROR invalid exptime argument\r\n");

    row("mg a Tx\r\n", "CLIENT_ERROR bad token in command line format\r\n");
    row("ms a 1 Fx\r\nx\r\n", BAD_FORMAT);
    row("ms a x\r\n", BAD_FORMAT);
    row("mg !!!! b\r\n", "CLIENT_ERROR error decoding key\r\n");
    row("ms a 1 MZ\r\nx\r\n", "CLIENT_ERROR invalid mode for ms M token\r\n");
    row("ma a MZ\r\n", "CLIENT_ERROR invalid mode for ma M token\r\n");
    row(&format!("mg a O{long_opaque}\r\n"), "CLIENT_ERROR opaque token too long\r\n");
    row(&format!("mg a{flags}\r\n"), "CLIENT_ERROR options flags are too long\r\n");
    row("mg a v v\r\n", "CLIENT_ERROR duplicate flag\r\n");
    row("mg a !\r\n", "CLIENT_ERROR invalid flag\r\n");
    row("ma a v v\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n");
    row("ma a !\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n");
    row("ms a 1 v v\r\nx\r\n", "CLIENT_ERROR duplicate flag\r\n");
    row("shutdown\r\n", "SERVER_ERROR: shutdown not enabled\r\n");
    rows
}

/// Input that ends the connection without an answer.
fn closing() -> Vec<Vec<u8>> {
    vec![
        b"GET / HTTP/1.1\r\n".to_vec(),
        vec![b'a'; 2049],
        [b"set ".to_vec(), vec![b'k'; 4096]].concat(),
        [vec![b' '; 101], b"get ".to_vec(), vec![b'k'; 4096]].concat(),
        [0x80, 0x00].repeat(2048),
    ]
}

fn shown(input: &[u8]) -> String {
    String::from_utf8_lossy(&input[..input.len().min(120)]).into_owned()
}

fn on_each_server(mut run: impl FnMut(&Node)) {
    for shards in [1, 2] {
        let scratch = Scratch::new("input");
        let node = Node::start(&NodeOptions::new(scratch.path()).shards(shards));
        run(&node);
        node.stop();
    }
}

#[test]
fn errors_are_those_that_clients_know() {
    on_each_server(|node| {
        // All in one connection: each row also shows that the rows before it did no harm.
        let mut client = node.client();
        for (input, expected) in answered() {
            let answer = client.exchange(&input);
            let answer = answer.unwrap_or_else(|error| panic!("{:?}: {error}", shown(&input)));
            assert_eq!(answer, expected, "{:?}", shown(&input));
        }
    });
}

#[test]
fn errors_do_not_depend_on_how_the_bytes_arrive() {
    on_each_server(|node| {
        let mut client = node.client();
        for (input, expected) in answered().into_iter().filter(|(input, _)| input.len() < 4096) {
            for byte in &input {
                client.send(std::slice::from_ref(byte)).unwrap();
            }
            assert_eq!(client.exchange(b"").unwrap(), expected, "{:?}", shown(&input));
        }
    });
}

#[test]
fn what_is_no_request_ends_the_connection() {
    on_each_server(|node| {
        for input in closing() {
            let mut client = node.client();
            client.send(b"set a 0 0 1\r\nx\r\n").unwrap();
            // The server may close before all of it is sent.
            let _ = client.send(&input);
            assert_eq!(client.line().unwrap(), "STORED", "{:?}", shown(&input));
            assert!(is_ended(&mut client), "{:?}: the connection goes on", shown(&input));
        }
        assert_eq!(node.client().set("a", b"x").unwrap(), "STORED");
    });
}

/// Whether the server closes the connection without a word. With input unread that is a reset.
fn is_ended(client: &mut Client) -> bool {
    match client.rest() {
        Ok(rest) => rest.is_empty(),
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn a_long_line_of_keys_is_no_error() {
    on_each_server(|node| {
        let mut client = node.client();
        let keys: String = (0..2000).map(|number| format!(" key-{number}")).collect();
        assert_eq!(client.exchange(b"set key-1999 0 0 1\r\nx\r\n").unwrap(), "STORED\r\n");
        let answer = client.exchange(format!("get{keys}\r\n").as_bytes()).unwrap();
        assert_eq!(answer, "VALUE key-1999 0 1\r\nx\r\nEND\r\n");
    });
}
