//! The admin port: metrics, health and an overview over HTTP, served by one thread of its own so
//! that they answer however busy the cores are.

pub mod http;
mod io;
mod memory;
pub mod metrics;
mod overview;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crate::config::IoChange;
use crate::control::Control;
use crate::counters::{CoreReport, ShardSpace};
use crate::inspect::space;
use crate::launch::{CoreHandle, StartError};
use crate::limits::{
    ADMIN_ACCEPT_RETRY_MILLISECONDS, ADMIN_CLIENT_MILLISECONDS, ADMIN_REQUEST_BYTES_MAX,
    REPORT_MILLISECONDS,
};
use crate::process;
use crate::service::Shared;
use http::{AdminPage, Parsed, Status};

const THREAD: &str = "larder-admin";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
/// The media type of Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The thread that serves the admin port.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    is_stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread works with.
struct Server {
    listener: TcpListener,
    cores: Vec<CoreHandle>,
    shared: Arc<Shared>,
    is_stopping: Arc<AtomicBool>,
    errors: AdminErrors,
}

/// What has gone wrong on the admin port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdminErrors {
    /// Clients that could not be accepted.
    pub accept: u64,
    /// Clients that sent no request, or did not take the answer, in time.
    pub client: u64,
}

impl Admin {
    /// Starts to serve `listener`.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn start(
        listener: TcpListener,
        cores: Vec<CoreHandle>,
        shared: Arc<Shared>,
    ) -> Result<Self, StartError> {
        let failed = |source| StartError::Thread { name: THREAD.to_owned(), source };
        let address = listener.local_addr().map_err(failed)?;
        let is_stopping = Arc::new(AtomicBool::new(false));
        let server = Server {
            listener,
            cores,
            shared,
            is_stopping: Arc::clone(&is_stopping),
            errors: AdminErrors::default(),
        };
        let thread = std::thread::Builder::new().name(THREAD.to_owned());
        let thread = Some(thread.spawn(|| server.serve()).map_err(failed)?);
        Ok(Self { address, is_stopping, thread })
    }

    /// Where the port is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the thread, after the client that it serves.
    pub fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.is_stopping.store(true, Ordering::Release);
        // The thread waits for a client: this is the last one.
        match TcpStream::connect(self.address) {
            Ok(_) => {
                if thread.join().is_err() {
                    tracing::error!("the admin thread panicked");
                }
            }
            Err(error) => tracing::warn!(%error, "the admin thread is not waited for"),
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Server {
    fn serve(mut self) {
        loop {
            let accepted = self.listener.accept();
            if self.is_stopping.load(Ordering::Acquire) {
                return;
            }
            match accepted {
                Ok((client, peer)) => {
                    if let Err(error) = self.serve_client(client, peer.ip()) {
                        self.errors.client += 1;
                        tracing::debug!(%error, "a client of the admin port was not served");
                    }
                }
                Err(error) => {
                    self.errors.accept += 1;
                    tracing::debug!(%error, "the admin port could not accept a client");
                    pause();
                }
            }
        }
    }

    fn serve_client(&self, mut client: TcpStream, peer: IpAddr) -> std::io::Result<()> {
        let deadline = now() + Duration::from_millis(ADMIN_CLIENT_MILLISECONDS);
        let answer = match read_request(&mut client, deadline)? {
            Parsed::AdminPage(page, with_body) => self.page(page, with_body),
            Parsed::ChangeIo(change) => self.change_io(&change, peer),
            Parsed::Refused(status) => http::refusal(status),
            Parsed::Partial => http::refusal(Status::HeadTooLarge),
        };
        let mut left = &answer[..];
        while !left.is_empty() {
            client.set_write_timeout(Some(time_left(deadline)?))?;
            let written = client.write(left)?;
            left = &left[written..];
        }
        Ok(())
    }

    fn page(&self, page: AdminPage, with_body: bool) -> Vec<u8> {
        let facts = &self.shared.facts;
        let (status, media_type, body) = match page {
            AdminPage::Overview => {
                (Status::Ok, HTML, overview::page(facts, &self.reports(), unix_seconds()))
            }
            AdminPage::Metrics => {
                let usage = process::usage();
                let now = unix_seconds();
                let body = metrics::render(facts, &self.reports(), usage, self.errors, now);
                (Status::Ok, METRICS, body)
            }
            AdminPage::Health => match metrics::health(&self.reports(), facts.cores) {
                Ok(()) => (Status::Ok, TEXT, "ok\n".to_owned()),
                Err(reason) => (Status::Unavailable, TEXT, reason),
            },
            AdminPage::Space | AdminPage::SpaceJson => match self.space() {
                Ok(shards) if page == AdminPage::Space => {
                    (Status::Ok, TEXT, shards.iter().map(ShardSpace::for_people).collect())
                }
                Ok(shards) => {
                    let shards = shards.iter().map(ShardSpace::in_json);
                    (Status::Ok, JSON, space::document(shards))
                }
                Err(reason) => (Status::Unavailable, TEXT, reason),
            },
            AdminPage::Io => (Status::Ok, JSON, io::document(facts, &self.reports())),
        };
        http::answer(status, media_type, &body, with_body)
    }

    /// Changes how disk requests share the disk, on all cores, and shows what holds then. Who is on
    /// another machine may look, but not change anything.
    fn change_io(&self, change: &str, peer: IpAddr) -> Vec<u8> {
        let done = if peer.to_canonical().is_loopback() {
            let parsed = io::parse_change(change).map_err(|reason| (Status::BadRequest, reason));
            parsed.and_then(|change| self.tell_change(change))
        } else {
            let reason = "changes are taken from the node's own machine alone";
            Err((Status::Forbidden, reason.to_owned()))
        };
        match done {
            Ok(()) => {
                let body = io::document(&self.shared.facts, &self.reports());
                http::answer(Status::Ok, JSON, &body, true)
            }
            Err((status, reason)) => http::answer(status, TEXT, &format!("{reason}\n"), true),
        }
    }

    fn tell_change(&self, change: IoChange) -> Result<(), (Status, String)> {
        let answers = self.ask(|reply| Control::ChangeIo(change, reply));
        let (found, cores) = (answers.len(), self.cores.len());
        // All cores go by the same rules.
        if let Some(reason) = answers.into_iter().find_map(Result::err) {
            return Err((Status::BadRequest, reason));
        }
        if found < cores {
            let reason = format!("only {found} of {cores} cores answer; ask again");
            return Err((Status::Unavailable, reason));
        }
        let IoChange { shares, caps } = change;
        tracing::info!(%shares, %caps, "disk requests share the disk in another way from now on");
        Ok(())
    }

    /// The figures of the cores that answer in time.
    fn reports(&self) -> Vec<CoreReport> {
        let mut reports = self.ask(Control::Report);
        reports.sort_by_key(|report: &CoreReport| report.core);
        reports
    }

    /// What all shards' bytes are for, or which cores do not say so: parts of it would mislead.
    fn space(&self) -> Result<Vec<ShardSpace>, String> {
        let answers = self.ask(Control::Space);
        let (found, cores) = (answers.len(), self.cores.len());
        if found < cores {
            return Err(format!("only {found} of {cores} cores answer\n"));
        }
        let mut shards: Vec<ShardSpace> = answers.into_iter().flatten().collect();
        shards.sort_by(|one, other| one.directory.cmp(&other.directory));
        Ok(shards)
    }

    /// What the cores say that answer in time.
    fn ask<T>(&self, question: impl Fn(Sender<T>) -> Control) -> Vec<T> {
        let (sender, receiver) = channel();
        for core in &self.cores {
            core.tell(question(sender.clone()));
        }
        drop(sender);
        let deadline = now() + Duration::from_millis(REPORT_MILLISECONDS);
        let mut answers = Vec::new();
        while answers.len() < self.cores.len() {
            let left = deadline.saturating_duration_since(now());
            match receiver.recv_timeout(left) {
                Ok(answer) => answers.push(answer),
                Err(_) => break,
            }
        }
        answers
    }
}

fn read_request(client: &mut TcpStream, deadline: Instant) -> std::io::Result<Parsed> {
    let mut head = [0; ADMIN_REQUEST_BYTES_MAX];
    let mut len = 0;
    while len < head.len() {
        client.set_read_timeout(Some(time_left(deadline)?))?;
        let received = client.read(&mut head[len..])?;
        if received == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        len += received;
        let parsed = http::parse(&head[..len]);
        if parsed != Parsed::Partial {
            return Ok(parsed);
        }
    }
    Ok(Parsed::Partial)
}

fn time_left(deadline: Instant) -> std::io::Result<Duration> {
    let left = deadline.saturating_duration_since(now());
    if left.is_zero() { Err(std::io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[allow(clippy::disallowed_methods, reason = "the admin thread is no core's")]
fn pause() {
    std::thread::sleep(Duration::from_millis(ADMIN_ACCEPT_RETRY_MILLISECONDS));
}

#[allow(clippy::disallowed_methods, reason = "the admin thread has no core to ask")]
fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "the admin thread has no core to ask")]
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
