//! What a connection sends: replies gather in one queue while another one is being sent.
//!
//! All instances of the network have this part alike. It does no I/O: who sends asks for what is
//! due, and says how much of it was taken.

#![forbid(unsafe_code)]

use crate::output_queue::{OutputQueue, Pieces};

/// A connection's output.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// What the service appends to.
    pub(crate) output: OutputQueue,
    /// What is being sent; not touched while a send is under way.
    in_flight: OutputQueue,
    /// How many bytes of `in_flight` were taken.
    sent: usize,
    is_sending: bool,
    /// Whether the output passed the high-water mark and has not come down since.
    is_above_high_water: bool,
}

impl Outgoing {
    /// The memory that it takes, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.in_flight.memory() + self.output.memory()
    }

    /// Bytes that were not taken yet.
    pub(crate) fn pending(&self) -> usize {
        self.in_flight.len() - self.sent + self.output.len()
    }

    /// Whether a send is under way.
    pub(crate) fn is_sending(&self) -> bool {
        self.is_sending
    }

    /// Notes that whoever fills the output is to be told when most of it is sent.
    pub(crate) fn expect_drained(&mut self) {
        self.is_above_high_water = true;
    }

    /// Begins a send if there is anything to send and none is under way; returns whether it did.
    /// What is sent stays where it is until [`Outgoing::note_sent`], or until this is dropped.
    pub(crate) fn start_send(&mut self) -> bool {
        if self.is_sending {
            return false;
        }
        // A buffer without output stays where it is given back from.
        if self.in_flight.is_empty() && !self.output.is_empty() {
            std::mem::swap(&mut self.output, &mut self.in_flight);
        }
        self.is_sending = !self.in_flight.is_empty();
        self.is_sending
    }

    /// What is being sent and was not taken yet, piece by piece.
    pub(crate) fn unsent(&self) -> Pieces<'_> {
        self.in_flight.pieces(self.sent)
    }

    /// Whether what is being sent may have more than one piece.
    pub(crate) fn is_in_pieces(&self) -> bool {
        self.in_flight.has_links()
    }

    /// Notes that a send ended after `bytes`: values that were taken whole are given back. Returns
    /// the buffer when all is sent.
    pub(crate) fn note_sent(&mut self, bytes: usize) -> Option<Vec<u8>> {
        assert!(self.is_sending, "a send ended that was not started");
        self.is_sending = false;
        self.sent += bytes;
        assert!(self.sent <= self.in_flight.len(), "more was sent than there was");
        if self.sent < self.in_flight.len() {
            self.in_flight.release(self.sent);
            return None;
        }
        self.sent = 0;
        Some(std::mem::take(&mut self.in_flight).into_buffer())
    }

    /// Notes whether the output is above the high-water mark.
    pub(crate) fn note_high_water(&mut self, high_water: usize) {
        if self.pending() > high_water {
            self.is_above_high_water = true;
        }
    }

    /// Whether the output has just come down to half of the high-water mark, after passing it.
    pub(crate) fn take_drained(&mut self, high_water: usize) -> bool {
        let is_low = self.pending() <= high_water / 2;
        is_low && std::mem::take(&mut self.is_above_high_water)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only piece that is to be sent.
    fn piece(outgoing: &Outgoing) -> &[u8] {
        assert!(!outgoing.is_in_pieces());
        outgoing.unsent().next().unwrap()
    }

    #[test]
    fn output_gathers_while_a_send_is_under_way() {
        let mut outgoing = Outgoing::default();
        assert!(!outgoing.start_send());
        outgoing.output.bytes().extend_from_slice(b"first");
        assert!(outgoing.start_send() && outgoing.is_sending());
        let memory = piece(&outgoing).as_ptr();
        outgoing.output.bytes().extend_from_slice(b"second");
        assert!(!outgoing.start_send() && outgoing.pending() == 11);
        assert!(outgoing.note_sent(2).is_none());
        assert!(outgoing.start_send());
        let rest = piece(&outgoing);
        assert_eq!((rest, rest.as_ptr()), (&b"rst"[..], memory.wrapping_add(2)));
        assert_eq!(outgoing.note_sent(3).as_deref(), Some(b"first".as_slice()));
        assert!(outgoing.start_send());
        assert_eq!(piece(&outgoing), b"second");
        assert_eq!(outgoing.note_sent(6).as_deref(), Some(b"second".as_slice()));
        assert!(!outgoing.start_send() && outgoing.pending() == 0);
    }

    #[test]
    fn a_buffer_that_nothing_was_written_to_can_be_given_back() {
        let mut outgoing = Outgoing::default();
        outgoing.output.bytes().reserve(4096);
        assert!(!outgoing.start_send());
        assert!(std::mem::take(&mut outgoing.output).into_buffer().capacity() >= 4096);
        assert_eq!(outgoing.memory(), 0);
    }

    #[test]
    fn a_slow_reader_holds_no_value_that_it_has_taken() {
        let mut outgoing = Outgoing::default();
        for _ in 0..3 {
            outgoing.output.bytes().extend_from_slice(b"head");
            let at = outgoing.output.bytes().len();
            outgoing.output.link_at(at, vec![7; 100_000]);
        }
        assert!(outgoing.start_send() && outgoing.is_in_pieces());
        let (whole, pending) = (outgoing.memory(), outgoing.pending());
        assert!(whole >= 300_000 && pending == 300_012);
        for (taken, left) in [(100_003, 300_000), (1, 200_000), (4 + 100_000, 100_000)] {
            assert!(outgoing.note_sent(taken).is_none());
            assert_eq!(outgoing.memory(), whole - 300_000 + left);
            assert!(outgoing.start_send());
        }
        assert_eq!(outgoing.unsent().map(<[u8]>::len).collect::<Vec<_>>(), [4, 100_000]);
        assert!(outgoing.note_sent(100_004).is_some());
        assert_eq!((outgoing.memory(), outgoing.pending()), (0, 0));
    }

    #[test]
    fn drained_comes_once_for_each_time_above_the_mark() {
        let mut outgoing = Outgoing::default();
        outgoing.output.bytes().resize(101, 0);
        outgoing.note_high_water(100);
        assert!(outgoing.start_send());
        outgoing.note_sent(50);
        assert!(!outgoing.take_drained(100), "51 bytes are left");
        assert!(outgoing.start_send());
        outgoing.note_sent(1);
        assert!(outgoing.take_drained(100));
        assert!(!outgoing.take_drained(100));
    }
}
