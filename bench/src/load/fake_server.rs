//! A few lines of memcached for tests: `mg`, `ms`, `get` and `set` in memory, one thread for each
//! connection, and the ways a server can misbehave.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::host;

/// How the server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// As it should.
    Honest,
    /// Answers each GET with a value of the right length that was never stored.
    Lies,
    /// Answers `SERVER_ERROR busy` to each SET.
    Refuses,
    /// Closes each connection after its first request.
    HangsUp,
    /// Never answers.
    Silent,
}

type Values = Arc<Mutex<HashMap<String, Vec<u8>>>>;

/// Starts a server that lives as long as the test process.
pub(super) fn start(behaviour: Behaviour) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let values = Values::default();
    host::start_detached(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let values = Arc::clone(&values);
            host::start_detached(move || serve(&stream, &values, behaviour).unwrap_or_default());
        }
    });
    address
}

fn serve(stream: &TcpStream, values: &Values, behaviour: Behaviour) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut out = Vec::new();
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["ms", .., size] | ["set", .., size] = words[..] {
            let mut value = vec![0; size.parse::<usize>().expect("a size") + 2];
            reader.read_exact(&mut value)?;
            value.truncate(value.len() - 2);
            values.lock().expect("whole").insert(words[1].to_owned(), value);
        }
        out.extend(answer(&words, values, behaviour));
        match behaviour {
            Behaviour::HangsUp => return Ok(()),
            Behaviour::Silent => out.clear(),
            // Only what is buffered is answered together, so a batch is one write.
            _ if reader.buffer().is_empty() => {
                (&mut &*stream).write_all(&out)?;
                out.clear();
            }
            _ => {}
        }
    }
}

fn answer(words: &[&str], values: &Values, behaviour: Behaviour) -> Vec<u8> {
    let values = values.lock().expect("whole");
    let mut value = values.get(words[1]).cloned();
    if behaviour == Behaviour::Lies {
        value.iter_mut().flatten().for_each(|byte| *byte ^= 1);
    }
    match (words[0], value) {
        ("ms" | "set", _) if behaviour == Behaviour::Refuses => b"SERVER_ERROR busy\r\n".to_vec(),
        ("ms", _) => b"HD\r\n".to_vec(),
        ("set", _) => b"STORED\r\n".to_vec(),
        ("mg", None) => b"EN\r\n".to_vec(),
        ("get", None) => b"END\r\n".to_vec(),
        ("mg", Some(value)) => {
            [format!("VA {}\r\n", value.len()).as_bytes(), &value[..], b"\r\n"].concat()
        }
        ("get", Some(value)) => {
            let head = format!("VALUE {} 0 {}\r\n", words[1], value.len());
            [head.as_bytes(), &value[..], b"\r\nEND\r\n"].concat()
        }
        (command, _) => panic!("the load generator does not send {command}"),
    }
}
