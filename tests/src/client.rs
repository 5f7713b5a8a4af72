//! A blocking client of memcached's text protocol, as small as the tests need it.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take. A slow, shared machine is no reason to fail.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// Bytes received; those before `read` are done with.
    received: Vec<u8>,
    read: usize,
}

/// What `get` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The client's own bits.
    pub flags: u32,
    /// The value.
    pub value: Vec<u8>,
}

impl Client {
    /// Connects; every later read and write fails after [`PATIENCE`].
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, received: Vec::new(), read: 0 })
    }

    /// The socket, for what this client does not do. What was received and not read is lost.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be sent; answers can still be read.
    pub fn finish_sending(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// The next line without its CR LF. A connection that ends first is
    /// [`io::ErrorKind::UnexpectedEof`].
    pub fn line(&mut self) -> io::Result<String> {
        let mut searched = 0;
        loop {
            let unread = &self.received[self.read..];
            let found = unread[searched..].windows(2).position(|pair| pair == b"\r\n");
            if let Some(position) = found {
                let end = searched + position;
                let line = String::from_utf8_lossy(&unread[..end]).into_owned();
                self.read += end + 2;
                return Ok(line);
            }
            // The CR may be there already.
            searched = unread.len().saturating_sub(1);
            self.receive()?;
        }
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.received.len() - self.read < count {
            self.receive()?;
        }
        let bytes = self.received[self.read..self.read + count].to_vec();
        self.read += count;
        Ok(bytes)
    }

    /// All that comes until the server closes the connection.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = self.received.split_off(self.read);
        self.received.clear();
        self.read = 0;
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// Sends a request and reads one line.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<String> {
        self.send(request)?;
        self.line()
    }

    /// Sends requests and returns all that is answered to them: `mn` is sent behind them, and its
    /// answer, which is left out, says that they are done.
    pub fn exchange(&mut self, requests: &[u8]) -> io::Result<String> {
        self.send(requests)?;
        self.send(b"mn\r\n")?;
        self.until_noop()
    }

    /// All answers before that to `mn`, which is read too. No value may hold a line `MN`.
    pub fn until_noop(&mut self) -> io::Result<String> {
        let mut answers = String::new();
        loop {
            let line = self.line()?;
            if line == "MN" {
                return Ok(answers);
            }
            answers.push_str(&line);
            answers.push_str("\r\n");
        }
    }

    /// `set`; returns the answer.
    pub fn set(&mut self, key: &str, value: &[u8]) -> io::Result<String> {
        self.send(&set_request(key, value))?;
        self.line()
    }

    /// `get` of one key.
    pub fn get(&mut self, key: &str) -> io::Result<Option<Item>> {
        let header = self.ask(format!("get {key}\r\n").as_bytes())?;
        if header == "END" {
            return Ok(None);
        }
        let unexpected = || io::Error::other(format!("get {key}: answered {header:?}"));
        let [b"VALUE", name, flags, length] =
            header.split(' ').map(str::as_bytes).collect::<Vec<_>>()[..]
        else {
            return Err(unexpected());
        };
        if name != key.as_bytes() {
            return Err(unexpected());
        }
        let number = |digits: &[u8]| str::from_utf8(digits).ok()?.parse::<u32>().ok();
        let (Some(flags), Some(length)) = (number(flags), number(length)) else {
            return Err(unexpected());
        };
        let mut value = self.bytes(length as usize + 2)?;
        value.truncate(length as usize);
        match self.line()?.as_str() {
            "END" => Ok(Some(Item { flags, value })),
            other => Err(io::Error::other(format!("get {key}: ended with {other:?}"))),
        }
    }

    /// A number of `stats`, if the server has it.
    pub fn statistic(&mut self, name: &str) -> io::Result<Option<u64>> {
        self.send(b"stats\r\n")?;
        let prefix = format!("STAT {name} ");
        let mut found = None;
        loop {
            let line = self.line()?;
            if line == "END" {
                return Ok(found);
            }
            if let Some(value) = line.strip_prefix(&prefix) {
                found = value.parse().ok();
            }
        }
    }

    /// Reads what is there, at least one byte. Moves `self.read` to the front.
    fn receive(&mut self) -> io::Result<()> {
        self.received.drain(..self.read);
        self.read = 0;
        let before = self.received.len();
        self.received.resize(before + 64 * 1024, 0);
        let outcome = self.stream.read(&mut self.received[before..]);
        let count = *outcome.as_ref().unwrap_or(&0);
        self.received.truncate(before + count);
        match outcome {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The bytes of a `set` with flags 0 that never expires.
pub fn set_request(key: &str, value: &[u8]) -> Vec<u8> {
    let mut request = format!("set {key} 0 0 {}\r\n", value.len()).into_bytes();
    request.extend_from_slice(value);
    request.extend_from_slice(b"\r\n");
    request
}
