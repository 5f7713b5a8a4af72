//! As much of HTTP/1.1 as metrics and health checks need: one request per connection, no body.

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminPage {
    /// `/`.
    Overview,
    /// `/metrics`.
    Metrics,
    /// `/healthz`.
    Health,
    /// `/space`.
    Space,
    /// `/space.json`.
    SpaceJson,
    /// `/io`.
    Io,
}

/// A request, or why it gets an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not whole yet.
    Partial,
    /// A page, and whether its body is wanted.
    AdminPage(AdminPage, bool),
    /// What `/io?` is to change.
    ChangeIo(String),
    /// An error with this status.
    Refused(Status),
}

/// The status of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 200.
    Ok,
    /// 400.
    BadRequest,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 405, and whether the page can be posted to.
    MethodNotAllowed {
        /// Whether `POST` is one of the methods.
        takes_post: bool,
    },
    /// 431.
    HeadTooLarge,
    /// 503.
    Unavailable,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::Forbidden => "403 Forbidden",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed { .. } => "405 Method Not Allowed",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

const HEADERS_MAX: usize = 64;

/// Reads a request's head.
pub fn parse(head: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => return Parsed::Refused(Status::HeadTooLarge),
        Err(_) => return Parsed::Refused(Status::BadRequest),
        Ok(httparse::Status::Complete(_)) => {}
    }
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let page = match path {
        "/" => AdminPage::Overview,
        "/metrics" => AdminPage::Metrics,
        "/healthz" => AdminPage::Health,
        "/space" => AdminPage::Space,
        "/space.json" => AdminPage::SpaceJson,
        "/io" => AdminPage::Io,
        _ => return Parsed::Refused(Status::NotFound),
    };
    match method {
        "GET" => Parsed::AdminPage(page, true),
        "HEAD" => Parsed::AdminPage(page, false),
        "POST" if page == AdminPage::Io => change(query, request.headers),
        _ => {
            let takes_post = page == AdminPage::Io;
            Parsed::Refused(Status::MethodNotAllowed { takes_post })
        }
    }
}

/// A change of a setting. It says everything in its target, so a body would be passed over; and a
/// page in a browser, which names its origin, has no business with the node of the same machine.
fn change(query: &str, headers: &[httparse::Header<'_>]) -> Parsed {
    let has_body = |header: &httparse::Header<'_>| {
        let is_length = header.name.eq_ignore_ascii_case("content-length");
        is_length && header.value.trim_ascii() != b"0"
            || header.name.eq_ignore_ascii_case("transfer-encoding")
    };
    if headers.iter().any(|header| header.name.eq_ignore_ascii_case("origin")) {
        return Parsed::Refused(Status::Forbidden);
    }
    if headers.iter().any(has_body) {
        return Parsed::Refused(Status::BadRequest);
    }
    Parsed::ChangeIo(query.to_owned())
}

/// An answer, after which the connection closes.
pub fn answer(status: Status, content_type: &str, body: &str, with_body: bool) -> Vec<u8> {
    let allow = match status {
        Status::MethodNotAllowed { takes_post: true } => "Allow: GET, HEAD, POST\r\n",
        Status::MethodNotAllowed { takes_post: false } => "Allow: GET, HEAD\r\n",
        _ => "",
    };
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}\
         Connection: close\r\n\r\n",
        status.line(),
        body.len(),
    );
    let mut bytes = head.into_bytes();
    if with_body {
        bytes.extend_from_slice(body.as_bytes());
    }
    bytes
}

/// The answer to a request that is refused.
pub fn refusal(status: Status) -> Vec<u8> {
    answer(status, "text/plain; charset=utf-8", &format!("{}\n", status.line()), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_found_and_everything_else_refused() {
        for (head, parsed) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", Parsed::AdminPage(AdminPage::Overview, true)),
            ("GET /metrics HTTP/1.0\r\n\r\n", Parsed::AdminPage(AdminPage::Metrics, true)),
            ("GET /metrics?x=1 HTTP/1.1\r\n\r\n", Parsed::AdminPage(AdminPage::Metrics, true)),
            ("HEAD /healthz HTTP/1.1\r\n\r\n", Parsed::AdminPage(AdminPage::Health, false)),
            ("GET /space HTTP/1.1\r\n\r\n", Parsed::AdminPage(AdminPage::Space, true)),
            ("HEAD /space.json HTTP/1.1\r\n\r\n", Parsed::AdminPage(AdminPage::SpaceJson, false)),
            ("GET /other HTTP/1.1\r\n\r\n", Parsed::Refused(Status::NotFound)),
            ("GET /io HTTP/1.1\r\n\r\n", Parsed::AdminPage(AdminPage::Io, true)),
            (
                "POST /io?shares=scan=5 HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
                Parsed::ChangeIo("shares=scan=5".to_owned()),
            ),
            ("POST /io HTTP/1.1\r\n\r\n", Parsed::ChangeIo(String::new())),
            ("POST /io HTTP/1.1\r\nContent-Length: 3\r\n\r\n", Parsed::Refused(Status::BadRequest)),
            (
                "POST /io HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
                Parsed::Refused(Status::BadRequest),
            ),
            (
                "POST /io?caps=scan=5M HTTP/1.1\r\nOrigin: http://x\r\n\r\n",
                Parsed::Refused(Status::Forbidden),
            ),
            (
                "PUT /io HTTP/1.1\r\n\r\n",
                Parsed::Refused(Status::MethodNotAllowed { takes_post: true }),
            ),
            (
                "POST / HTTP/1.1\r\n\r\n",
                Parsed::Refused(Status::MethodNotAllowed { takes_post: false }),
            ),
            ("GET / HTTP/1.1\r\nHost:", Parsed::Partial),
            ("", Parsed::Partial),
            ("get version\r\n\r\n", Parsed::Refused(Status::BadRequest)),
            ("\0\0\0\0", Parsed::Refused(Status::BadRequest)),
        ] {
            assert_eq!(parse(head.as_bytes()), parsed, "{head:?}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(parse(many.as_bytes()), Parsed::Refused(Status::HeadTooLarge));
    }

    #[test]
    fn answers_are_whole() {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        assert_eq!(
            text(answer(Status::Ok, "text/plain", "ok\n", true)),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\
             Connection: close\r\n\r\nok\n"
        );
        assert!(text(answer(Status::Ok, "text/plain", "ok\n", false)).ends_with("close\r\n\r\n"));
        let refused = text(refusal(Status::MethodNotAllowed { takes_post: false }));
        assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("Allow: GET, HEAD\r\n"));
        let refused = text(refusal(Status::MethodNotAllowed { takes_post: true }));
        assert!(refused.contains("Allow: GET, HEAD, POST\r\n"), "{refused}");
    }
}
