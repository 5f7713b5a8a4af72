//! Where a reply is written: into one buffer, or around a value that needs not be copied.

/// What replies that may show a long value are appended to.
pub trait ReplySink {
    /// The buffer for everything but the value.
    fn bytes(&mut self) -> &mut Vec<u8>;

    /// Makes room for a value of so many bytes and so many `around` it.
    fn make_room(&mut self, around: usize, value: usize);

    /// Appends the value of the item that the reply shows. A reply does so at most once.
    fn put_value(&mut self, value: &[u8]);
}

/// The value is copied.
impl ReplySink for Vec<u8> {
    #[inline]
    fn bytes(&mut self) -> &mut Vec<u8> {
        self
    }

    #[inline]
    fn make_room(&mut self, around: usize, value: usize) {
        self.reserve(around + value);
    }

    #[inline]
    fn put_value(&mut self, value: &[u8]) {
        self.extend_from_slice(value);
    }
}
