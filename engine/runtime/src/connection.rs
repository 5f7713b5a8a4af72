//! One connection's state. Decides which operation is due; issues none itself.

use std::os::fd::OwnedFd;

use crate::outgoing::Outgoing;

/// The most that one send operation is given, in bytes.
const SEND_BYTES_MAX: usize = 1 << 30;

/// After so many receives that brought little, a connection is trusted with a multishot receive.
const SHORT_RECEIVES_MIN: u8 = 8;

/// The receive operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receive {
    /// There is none in the ring.
    Off,
    Armed,
    /// Its cancellation is in the ring as well.
    Cancelling,
}

/// How far a connection's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// In use.
    No,
    /// No more input is delivered; when the output has been sent, the peer is told so.
    AfterOutput,
    /// All is sent, and the peer knows that nothing follows. What it still sends is discarded until
    /// it ends too: a socket closed with unread bytes resets the connection, and the peer could
    /// lose what it has not read yet.
    Lingering,
    /// Closes when the operations in the ring have ended.
    Now,
}

/// What is due for the receive operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReceiveChange {
    None,
    Arm,
    Cancel,
}

pub(crate) struct Connection {
    pub(crate) fd: OwnedFd,
    pub(crate) outgoing: Outgoing,
    pub(crate) receive: Receive,
    pub(crate) closing: Closing,
    pub(crate) is_paused: bool,
    pub(crate) has_peer_ended: bool,
    /// How many receives in a row have brought little, up to [`SHORT_RECEIVES_MIN`].
    short_receives: u8,
    /// Whether the connection is on the list of those to look at when the turn ends.
    pub(crate) is_dirty: bool,
    pub(crate) is_cancel_sent: bool,
    /// Bytes arrived and nothing was sent since: see `RingNetwork::probe_silent`.
    pub(crate) is_unconfirmed: bool,
    /// Whether the connection is on the list of those to probe.
    pub(crate) is_to_be_probed: bool,
    /// Operations in the ring whose last completion is missing.
    pub(crate) awaited: u8,
    /// Bytes that were discarded while lingering.
    pub(crate) discarded: u32,
    /// The memory of its output that the network has counted.
    pub(crate) counted: usize,
}

// An idle connection costs no more than this entry.
const _: () = assert!(size_of::<Connection>() <= 128);

impl Connection {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            outgoing: Outgoing::default(),
            receive: Receive::Off,
            closing: Closing::No,
            is_paused: false,
            has_peer_ended: false,
            short_receives: 0,
            is_dirty: false,
            is_cancel_sent: false,
            is_unconfirmed: false,
            is_to_be_probed: false,
            awaited: 0,
            discarded: 0,
            counted: 0,
        }
    }

    /// The memory that the output takes, in bytes; nothing if it is about to be given back.
    pub(crate) fn output_memory(&self) -> usize {
        let is_closing = self.closing == Closing::Now;
        if is_closing { 0 } else { self.outgoing.memory() }
    }

    /// Notes how much a receive has brought into a buffer of `buffer_bytes`.
    pub(crate) fn note_receive(&mut self, bytes: usize, buffer_bytes: usize) {
        let is_short = bytes < buffer_bytes / 4;
        let more = self.short_receives.saturating_add(1).min(SHORT_RECEIVES_MIN);
        self.short_receives = if is_short { more } else { 0 };
    }

    /// Whether the next receive is to bring one buffer only. A multishot receive takes hundreds of
    /// KiB in one turn from a client that sends much, before the service can say that it wants no
    /// more of it.
    pub(crate) fn receives_once(&self) -> bool {
        self.short_receives < SHORT_RECEIVES_MIN
    }

    /// Notes that bytes have arrived; returns whether the connection is to be put on the list of
    /// those to probe.
    pub(crate) fn note_received(&mut self) -> bool {
        self.is_unconfirmed = true;
        !std::mem::replace(&mut self.is_to_be_probed, true)
    }

    /// What to send now, if there is anything and no send is in the ring. The memory stays where it
    /// is until the send has ended or the connection is dropped.
    pub(crate) fn start_send(&mut self) -> Option<(*const u8, u32)> {
        if !self.outgoing.start_send() {
            return None;
        }
        self.is_unconfirmed = false;
        let rest = self.outgoing.unsent();
        Some((rest.as_ptr(), rest.len().min(SEND_BYTES_MAX) as u32))
    }

    /// Whether the receive operation should be in the ring. A connection that closes after its
    /// output goes on receiving and discards the bytes, as [`Closing::Lingering`] says.
    fn wants_receive(&self) -> bool {
        match self.closing {
            Closing::No => !self.has_peer_ended && !self.is_paused,
            Closing::AfterOutput | Closing::Lingering => !self.has_peer_ended,
            Closing::Now => false,
        }
    }

    pub(crate) fn receive_change(&self) -> ReceiveChange {
        match (self.receive, self.wants_receive()) {
            (Receive::Off, true) => ReceiveChange::Arm,
            (Receive::Armed, false) => ReceiveChange::Cancel,
            _ => ReceiveChange::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
        Connection::new(socket.into())
    }

    #[test]
    fn a_client_that_sends_much_is_received_from_one_buffer_at_a_time() {
        let mut connection = connection();
        for short in 0..=SHORT_RECEIVES_MIN {
            assert_eq!(connection.receives_once(), short < SHORT_RECEIVES_MIN);
            connection.note_receive(24, 100);
        }
        assert!(!connection.receives_once());
        connection.note_receive(25, 100);
        assert!(connection.receives_once());
    }

    #[test]
    fn pausing_and_resuming_within_a_turn_changes_nothing() {
        let mut connection = connection();
        assert_eq!(connection.receive_change(), ReceiveChange::Arm);
        connection.receive = Receive::Armed;
        connection.is_paused = true;
        assert_eq!(connection.receive_change(), ReceiveChange::Cancel);
        connection.is_paused = false;
        assert_eq!(connection.receive_change(), ReceiveChange::None);
        connection.receive = Receive::Cancelling;
        assert_eq!(connection.receive_change(), ReceiveChange::None);
        connection.receive = Receive::Off;
        assert_eq!(connection.receive_change(), ReceiveChange::Arm);
        connection.has_peer_ended = true;
        assert_eq!(connection.receive_change(), ReceiveChange::None);
    }
}
