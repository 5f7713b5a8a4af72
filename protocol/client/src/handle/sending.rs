//! How bytes leave a lane.
//!
//! Who has something to send sends it, with everything that came meanwhile; only what the socket
//! does not take at once is left to a second thread, so that no caller ever waits for a socket.

use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use rustix::io::Errno;
use rustix::net::SendFlags;

use super::breakage::Breakage;
use super::lane::{Lane, Phase};
use super::link::Reader;
use super::locked;

/// How often a caller sends what others have brought meanwhile, before it leaves that to a thread.
const ROUNDS_MAX: usize = 16;

impl Lane {
    /// Sends what was added since it was last looked.
    pub(crate) fn flush_if_dirty(self: &Arc<Self>) {
        if self.is_dirty.swap(false, Ordering::AcqRel) {
            self.flush();
        }
    }

    /// Sends what waits, unless somebody does. The lane's thread reads what is answered, unless
    /// somebody else does.
    pub(crate) fn flush(self: &Arc<Self>) {
        let (batch, stream, epoch) = {
            let mut state = locked(&self.state);
            let Phase::Up(link) = &mut state.phase else { return };
            let Some(batch) = link.pipeline.begin_send() else { return };
            self.call_thread(&mut link.readership);
            (batch, Arc::clone(&link.stream), link.epoch)
        };
        self.send(batch, &stream, epoch);
    }

    /// The same for a thread that waits for answers: what it reads them with, unless somebody else
    /// reads.
    pub(super) fn flush_to_read(self: &Arc<Self>) -> Option<(Reader, u64)> {
        let (batch, stream, epoch, reader) = {
            let mut state = locked(&self.state);
            let Phase::Up(link) = &mut state.phase else { return None };
            let batch = link.pipeline.begin_send()?;
            (batch, Arc::clone(&link.stream), link.epoch, link.readership.take())
        };
        self.send(batch, &stream, epoch);
        Some((reader?, epoch))
    }

    fn send(self: &Arc<Self>, mut batch: Vec<u8>, stream: &TcpStream, epoch: u64) {
        for round in 1.. {
            let (sent, error) = send_now(stream, &batch);
            if let Some(error) = error {
                let why = Breakage::failed(&error.into());
                return self.give_up(epoch, batch.len() - sent, why);
            }
            let mut state = locked(&self.state);
            let rest = if sent < batch.len() {
                (batch, sent)
            } else {
                let Some(next) = state.next_batch(epoch, batch) else { return };
                self.see_to_reading(&mut state, epoch);
                if round < ROUNDS_MAX {
                    batch = next;
                    continue;
                }
                (next, 0)
            };
            let Some(link) = state.link(epoch) else { return };
            link.rest = Some(rest);
            let has_sender = std::mem::replace(&mut link.has_sender, true);
            drop(state);
            if has_sender {
                self.changed.notify_all();
            } else {
                self.start_sender(epoch);
            }
            return;
        }
    }

    fn start_sender(self: &Arc<Self>, epoch: u64) {
        let lane = Arc::clone(self);
        let thread = std::thread::Builder::new().name("larder-sender".to_owned());
        if let Err(error) = thread.spawn(move || lane.send_rests(epoch)) {
            self.break_off(epoch, Breakage::failed(&error));
        }
    }

    /// Sends what sockets do not take at once, for as long as the connection lasts.
    fn send_rests(self: Arc<Self>, epoch: u64) {
        loop {
            let (mut batch, sent, stream) = {
                let mut state = locked(&self.state);
                loop {
                    let Some(link) = state.link(epoch) else { return };
                    if let Some((batch, sent)) = link.rest.take() {
                        break (batch, sent, Arc::clone(&link.stream));
                    }
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            };
            let mut sent = sent;
            loop {
                while sent < batch.len() {
                    match rustix::net::send(&*stream, &batch[sent..], SendFlags::NOSIGNAL) {
                        Ok(count) => {
                            sent += count;
                            self.note_life(epoch);
                        }
                        Err(Errno::INTR) => {}
                        Err(error) => {
                            let why = Breakage::failed(&error.into());
                            return self.give_up(epoch, batch.len() - sent, why);
                        }
                    }
                }
                let mut state = locked(&self.state);
                let Some(next) = state.next_batch(epoch, batch) else { break };
                self.see_to_reading(&mut state, epoch);
                (batch, sent) = (next, 0);
            }
        }
    }

    /// Some bytes were not sent, and never will be.
    fn give_up(&self, epoch: u64, unsent: usize, why: Breakage) {
        if let Some(link) = locked(&self.state).link(epoch) {
            link.pipeline.give_up(unsent);
        }
        self.break_off(epoch, why);
    }

    /// Has the connection end.
    pub(super) fn break_off(&self, epoch: u64, why: Breakage) {
        if let Some(link) = locked(&self.state).link(epoch) {
            link.break_off(why);
        }
    }
}

#[cfg(test)]
impl Lane {
    /// Does as a thread that waits for what it has asked, and that is held up when it has sent it:
    /// somebody else reads the answer meanwhile. Returns how it goes on.
    pub(super) fn send_and_be_held_up(
        self: &Arc<Self>,
        client: &super::client_core::ClientCore,
    ) -> impl FnOnce() + use<> {
        let (batch, stream, epoch, reader) = {
            let mut state = locked(&self.state);
            let Phase::Up(link) = &mut state.phase else { panic!("a connection") };
            let batch = link.pipeline.begin_send().expect("something was asked");
            (batch, Arc::clone(&link.stream), link.epoch, link.readership.take())
        };
        assert_eq!(send_now(&stream, &batch), (batch.len(), None));
        let mut reader = reader.expect("nobody reads");
        while self.is_owed() {
            let at_most = std::time::Duration::from_secs(10);
            self.read_once((&mut reader, epoch), client, at_most).expect("an answer");
        }
        self.put_back(reader, epoch);
        let lane = Arc::clone(self);
        move || lane.send(Vec::new(), &stream, epoch)
    }

    /// Whether an answer is owed.
    pub(super) fn is_owed(&self) -> bool {
        matches!(&locked(&self.state).phase, Phase::Up(link) if link.pipeline.under_way() > 0)
    }
}

/// Sends as much as the socket takes at once: how much, and why not more if that is final.
fn send_now(stream: &TcpStream, bytes: &[u8]) -> (usize, Option<Errno>) {
    let mut sent = 0;
    while sent < bytes.len() {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::send(stream, &bytes[sent..], flags) {
            Ok(count) => sent += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            Err(error) => return (sent, Some(error)),
        }
    }
    (sent, None)
}
