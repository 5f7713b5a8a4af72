//! What a connection sends: replies gather in one buffer while another one is being sent.
//!
//! All instances of the network have this part alike. It does no I/O: who sends asks for what is
//! due, and says how much of it was taken.

#![forbid(unsafe_code)]

/// A connection's output.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Bytes that the service appends to.
    pub(crate) output: Vec<u8>,
    /// Bytes that are being sent; not touched while a send is under way.
    in_flight: Vec<u8>,
    /// How many bytes of `in_flight` were taken.
    sent: usize,
    is_sending: bool,
    /// Whether the output passed the high-water mark and has not come down since.
    is_above_high_water: bool,
}

impl Outgoing {
    /// The memory that it takes, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.in_flight.capacity() + self.output.capacity()
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
        if self.in_flight.is_empty() {
            std::mem::swap(&mut self.output, &mut self.in_flight);
        }
        self.is_sending = !self.in_flight.is_empty();
        self.is_sending
    }

    /// What of the buffer in flight was not taken.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.in_flight[self.sent..]
    }

    /// Notes that a send ended after `bytes`. Returns the buffer when all of it is sent.
    pub(crate) fn note_sent(&mut self, bytes: usize) -> Option<Vec<u8>> {
        assert!(self.is_sending, "a send ended that was not started");
        self.is_sending = false;
        self.sent += bytes;
        assert!(self.sent <= self.in_flight.len(), "more was sent than there was");
        if self.sent < self.in_flight.len() {
            return None;
        }
        self.sent = 0;
        Some(std::mem::take(&mut self.in_flight))
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

    #[test]
    fn output_gathers_while_a_send_is_under_way() {
        let mut outgoing = Outgoing::default();
        assert!(!outgoing.start_send());
        outgoing.output.extend_from_slice(b"first");
        assert!(outgoing.start_send() && outgoing.is_sending());
        let memory = outgoing.unsent().as_ptr();
        outgoing.output.extend_from_slice(b"second");
        assert!(!outgoing.start_send() && outgoing.pending() == 11);
        assert!(outgoing.note_sent(2).is_none());
        assert!(outgoing.start_send());
        let rest = outgoing.unsent();
        assert_eq!((rest, rest.as_ptr()), (&b"rst"[..], memory.wrapping_add(2)));
        assert_eq!(outgoing.note_sent(3).as_deref(), Some(b"first".as_slice()));
        assert!(outgoing.start_send());
        assert_eq!(outgoing.unsent(), b"second");
        assert_eq!(outgoing.note_sent(6).as_deref(), Some(b"second".as_slice()));
        assert!(!outgoing.start_send() && outgoing.pending() == 0);
    }

    #[test]
    fn drained_comes_once_for_each_time_above_the_mark() {
        let mut outgoing = Outgoing { output: vec![0; 101], ..Outgoing::default() };
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
