//! The node's counters, from its admin port in Prometheus' text format.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long the admin port may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Reads `/metrics`; the error says what was wrong with the answer.
pub(super) fn fetch(address: SocketAddr) -> Result<String, String> {
    let answer = request(address).map_err(|error| format!("{address}/metrics: {error}"))?;
    body(&answer).map(str::to_owned).map_err(|reason| format!("{address}/metrics: {reason}"))
}

fn request(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

fn body(answer: &str) -> Result<&str, String> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is cut off")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split_whitespace().nth(1) != Some("200") {
        return Err(format!("the answer is `{status}`"));
    }
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return Err("the answer is chunked, though the connection ends with it".to_owned());
    }
    Ok(body)
}

/// The sum over all series of `name` that carry all of `labels`; `None` if there is none.
pub(super) fn value(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let matching = text.lines().filter_map(parse_line).filter(|series| {
        let carries = |wanted: &(&str, &str)| {
            series.labels.iter().any(|(label, value)| (*label, value.as_str()) == *wanted)
        };
        series.name == name && labels.iter().all(carries)
    });
    matching.map(|series| series.value).reduce(|sum, value| sum + value)
}

#[derive(Debug, PartialEq)]
struct Series<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

fn parse_line(line: &str) -> Option<Series<'_>> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let name_end = line.find(|sign: char| sign == '{' || sign.is_whitespace())?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = parse_labels(inside, &mut labels)?;
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Series { name, labels, value })
}

/// Reads labels up to the closing brace and gives what follows it.
fn parse_labels<'a>(mut text: &'a str, labels: &mut Vec<(&'a str, String)>) -> Option<&'a str> {
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some(rest);
        }
        let (label, quoted) = text.split_once("=\"")?;
        let (value, rest) = parse_quoted(quoted)?;
        labels.push((label.trim(), value));
        text = rest;
    }
}

/// Reads up to the closing quote, with the escapes undone, and gives what follows it.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut signs = text.char_indices();
    while let Some((position, sign)) = signs.next() {
        match sign {
            '"' => return Some((value, &text[position + 1..])),
            '\\' => match signs.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            plain => value.push(plain),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP larder_disk_reads_total Device reads.
# TYPE larder_disk_reads_total counter
larder_disk_reads_total{shard=\"0\",class=\"read\"} 120
larder_disk_reads_total{shard=\"1\",class=\"read\"} 30 1795194385000
larder_disk_reads_total{shard=\"0\",class=\"scan\"} 7
larder_disk_reads_total_other{class=\"read\"} 1000
larder_operations_total{operation=\"get\",} 1.5e3
larder_odd{name=\"a \\\"b\\\", \\\\ } c=\\\"d\\\"\"} 4
larder_up 1
broken{class=\"read 3
";

    #[test]
    fn series_are_summed_over_the_labels_not_asked_for() {
        let reads = |labels| value(TEXT, "larder_disk_reads_total", labels);
        assert_eq!(reads(&[("class", "read")]), Some(150.0));
        assert_eq!(reads(&[("class", "read"), ("shard", "1")]), Some(30.0));
        assert_eq!(reads(&[]), Some(157.0));
        assert_eq!(reads(&[("class", "write")]), None);
        assert_eq!(value(TEXT, "larder_operations_total", &[("operation", "get")]), Some(1500.0));
        assert_eq!(value(TEXT, "larder_up", &[]), Some(1.0));
        let odd = value(TEXT, "larder_odd", &[("name", "a \"b\", \\ } c=\"d\"")]);
        assert_eq!(odd, Some(4.0));
        assert_eq!(value(TEXT, "broken", &[]), None);
    }

    #[test]
    fn only_a_whole_good_answer_has_a_body() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nA: b\r\n\r\nlarder_up 1\n"), Ok("larder_up 1\n"));
        for (answer, reason) in [
            ("HTTP/1.1 200 OK\r\nA: b\r\n", "cut off"),
            ("HTTP/1.1 404 Not Found\r\n\r\n", "404"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na", "chunked"),
        ] {
            assert!(body(answer).expect_err("refused").contains(reason));
        }
    }

    #[test]
    fn metrics_come_over_a_socket() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        crate::host::start_detached(move || {
            let (mut stream, _) = listener.accept().expect("one client");
            let mut request = [0; 1024];
            let count = stream.read(&mut request).expect("a request");
            assert!(request[..count].starts_with(b"GET /metrics HTTP/1.1\r\n"));
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nlarder_up 1\n").expect("an open socket");
        });
        assert_eq!(fetch(address), Ok("larder_up 1\n".to_owned()));
    }
}
