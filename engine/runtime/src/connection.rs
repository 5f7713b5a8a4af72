//! One connection's state. Decides which operation is due; issues none itself.

use std::os::fd::OwnedFd;

use crate::outgoing::Outgoing;

/// The most that one send operation is given, in bytes.
const SEND_BYTES_MAX: usize = 1 << 30;

/// The most pieces that one send operation is given. An output within its high-water mark has less.
const SEND_PIECES_MAX: usize = 64;

/// What a send operation is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// So many bytes from there.
    Bytes(*const u8, u32),
    /// What this list says.
    Pieces(*const libc::msghdr),
}

/// The list of pieces that a send operation reads.
struct PieceList {
    header: libc::msghdr,
    pieces: [libc::iovec; SEND_PIECES_MAX],
}

impl PieceList {
    fn new() -> Box<Self> {
        // SAFETY: all-zero bytes are a header without a list, and empty pieces.
        let mut list: Box<Self> = Box::new(unsafe { std::mem::zeroed() });
        list.header.msg_iov = list.pieces.as_mut_ptr();
        list
    }

    /// Fills the list with the front of `pieces`.
    fn fill<'p>(&mut self, pieces: impl Iterator<Item = &'p [u8]>) {
        let (mut count, mut left) = (0, SEND_BYTES_MAX);
        for (piece, entry) in pieces.zip(&mut self.pieces) {
            let len = piece.len().min(left);
            *entry = libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: len };
            count += 1;
            left -= len;
            if left == 0 {
                break;
            }
        }
        self.header.msg_iovlen = count;
    }
}

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
    /// What the send in the ring reads, if it is in pieces.
    list: Option<Box<PieceList>>,
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
            list: None,
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
        let list = if self.list.is_some() { size_of::<PieceList>() } else { 0 };
        if is_closing { 0 } else { self.outgoing.memory() + list }
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
    pub(crate) fn start_send(&mut self) -> Option<Sending> {
        if !self.outgoing.start_send() {
            return None;
        }
        self.is_unconfirmed = false;
        if self.outgoing.is_in_pieces() {
            let list = self.list.get_or_insert_with(PieceList::new);
            list.fill(self.outgoing.unsent());
            return Some(Sending::Pieces(&raw const list.header));
        }
        let rest = self.outgoing.unsent().next()?;
        Some(Sending::Bytes(rest.as_ptr(), rest.len().min(SEND_BYTES_MAX) as u32))
    }

    /// Notes that a send ended after `bytes`. Returns the buffer when all is sent.
    pub(crate) fn note_sent(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let buffer = self.outgoing.note_sent(bytes);
        if buffer.is_some() {
            self.list = None;
        }
        buffer
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
