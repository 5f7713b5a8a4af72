//! Bounded rings with one producer and one consumer: how one core's thread speaks to another's.
//!
//! A message is first staged, then published together with its batch, so that the line with the
//! producer's index travels between the cores once per batch and not once per message.
//!
//! ```text
//!              consumed              published             staged
//!                 |                      |                   |
//!   ring:  free   |  visible to receiver |  written, unseen  |   free (wraps around)
//! ```
//!
//! The three are counts of messages since the start; they wrap with `usize`, and the slot of
//! message `n` is `n & (capacity - 1)`. The invariants, in wrapping arithmetic:
//!
//! - `consumed <= published <= staged <= consumed + capacity`.
//! - The slots of `consumed..published` belong to the receiver and hold a message each; all others
//!   belong to the sender, and of those `published..staged` hold a message each.
//! - `published` is stored by the sender alone, with Release after the messages are written; the
//!   receiver's Acquire load hands the slots over. `consumed` is stored by the receiver alone, with
//!   Release after the message is moved out; the sender's Acquire load hands the slot back.
//!
//! Each side remembers the last value it saw of the other's index and looks again only when that
//! value says full or empty. The indices are on lines of their own, two cache lines wide because
//! processors fetch lines in pairs.
//!
//! Nothing here wakes a sleeping receiver: that is [`crate::park`], called after
//! [`Sender::publish`].

use std::mem::MaybeUninit;

use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering, UnsafeCell};

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

/// What one side stores and the other side reads.
#[repr(align(128))]
struct Side {
    /// The sender's `published` or the receiver's `consumed`.
    index: AtomicUsize,
    /// Whether the handle of this side was dropped.
    gone: AtomicBool,
}

impl Side {
    fn new(first: usize) -> Self {
        Self { index: AtomicUsize::new(first), gone: AtomicBool::new(false) }
    }
}

struct Ring<T> {
    sender: Side,
    receiver: Side,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    mask: usize,
}

// SAFETY: the ring moves values of `T` from one thread to another and never lends one to two of
// them; which thread may touch which slot follows from the indices (see the module's invariants).
unsafe impl<T: Send> Send for Ring<T> {}
// SAFETY: as above; the shared words are atomics.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    /// Writes `message` into the slot of `index`.
    ///
    /// # Safety
    /// The slot belongs to the caller and holds no message.
    unsafe fn write(&self, index: usize, message: T) {
        self.slots[index & self.mask].with_mut(|slot| {
            // SAFETY: the caller owns the slot, so no other reference to it exists.
            unsafe { (*slot).write(message) };
        });
    }

    /// Moves the message out of the slot of `index`.
    ///
    /// # Safety
    /// The slot belongs to the caller and holds a message, which nobody takes a second time.
    unsafe fn take(&self, index: usize) -> T {
        self.slots[index & self.mask].with_mut(|slot| {
            // SAFETY: the caller owns the slot and it is initialised.
            unsafe { (*slot).assume_init_read() }
        })
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // Both handles are gone, and what they did happened before the last one let go of the
        // ring; the sender has dropped its staged messages itself.
        let published = self.sender.index.load(Ordering::Relaxed);
        let mut consumed = self.receiver.index.load(Ordering::Relaxed);
        while consumed != published {
            // SAFETY: the slots of `consumed..published` hold a message each, and `&mut self`
            // proves that nobody else is left to touch them.
            drop(unsafe { self.take(consumed) });
            consumed = consumed.wrapping_add(1);
        }
    }
}

/// The producing end of a ring.
pub struct Sender<T> {
    ring: Arc<Ring<T>>,
    /// Messages written since the start, published or not.
    staged: usize,
    /// What `ring.sender.index` holds.
    published: usize,
    /// The receiver's index as last seen; the true one is at most `capacity` ahead.
    consumed_seen: usize,
}

/// The consuming end of a ring.
pub struct Receiver<T> {
    ring: Arc<Ring<T>>,
    /// What `ring.receiver.index` holds.
    consumed: usize,
    /// The sender's index as last seen; the true one is at most `capacity` ahead.
    published_seen: usize,
}

/// Makes a ring that holds up to `capacity` messages, staged and published together.
///
/// `capacity` is a power of two. The slots are allocated here; sending and receiving allocate
/// nothing.
pub fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    channel_from(capacity, 0)
}

/// A ring whose indices start at `first`.
fn channel_from<T: Send>(capacity: usize, first: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity.is_power_of_two(), "a mailbox of {capacity} slots: not a power of two");
    let ring = Arc::new(Ring {
        sender: Side::new(first),
        receiver: Side::new(first),
        slots: (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
        mask: capacity - 1,
    });
    let sender =
        Sender { ring: ring.clone(), staged: first, published: first, consumed_seen: first };
    let receiver = Receiver { ring, consumed: first, published_seen: first };
    (sender, receiver)
}

impl<T: Send> Sender<T> {
    /// Stages `message`: the receiver sees it after the next [`Sender::publish`].
    ///
    /// Returns the message when the ring is full. A full ring whose messages are all staged becomes
    /// free only by publishing them.
    pub fn push(&mut self, message: T) -> Result<(), T> {
        if self.staged.wrapping_sub(self.consumed_seen) > self.ring.mask {
            self.consumed_seen = self.ring.receiver.index.load(Ordering::Acquire);
            if self.staged.wrapping_sub(self.consumed_seen) > self.ring.mask {
                return Err(message);
            }
        }
        // SAFETY: fewer than `capacity` messages lie between `consumed` and `staged`, so the slot
        // is the sender's and empty; the Acquire load that brought `consumed_seen` ordered the
        // receiver's last access to it before this one.
        unsafe { self.ring.write(self.staged, message) };
        self.staged = self.staged.wrapping_add(1);
        Ok(())
    }

    /// Makes all staged messages visible to the receiver at once, in the order of their
    /// [`Sender::push`]. Returns whether there were any.
    pub fn publish(&mut self) -> bool {
        if self.staged == self.published {
            return false;
        }
        self.published = self.staged;
        self.ring.sender.index.store(self.published, Ordering::Release);
        true
    }
}

impl<T> Sender<T> {
    /// The number of messages that the receiver has not taken, staged ones among them.
    pub fn waiting(&mut self) -> usize {
        self.consumed_seen = self.ring.receiver.index.load(Ordering::Acquire);
        self.staged.wrapping_sub(self.consumed_seen)
    }

    /// The number of messages that are staged and not yet published.
    pub fn staged(&self) -> usize {
        self.staged.wrapping_sub(self.published)
    }

    /// Whether the receiver was dropped. Messages that it had not taken are dropped with the
    /// sender, and so are those that are still published to it.
    pub fn is_disconnected(&self) -> bool {
        self.ring.receiver.gone.load(Ordering::Acquire)
    }
}

impl<T> Drop for Sender<T> {
    /// Drops the staged messages; the published ones remain for the receiver.
    fn drop(&mut self) {
        self.ring.sender.gone.store(true, Ordering::Release);
        while self.staged != self.published {
            self.staged = self.staged.wrapping_sub(1);
            // SAFETY: the slots of `published..staged` hold a message each and are the sender's;
            // `staged` was moved first, so a message whose drop panics is not dropped again.
            drop(unsafe { self.ring.take(self.staged) });
        }
    }
}

impl<T: Send> Receiver<T> {
    /// Takes the oldest published message; `None` if there is none at this moment.
    pub fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: `consumed` is before `published`, so the slot is the receiver's and holds a
        // message; the Acquire load that brought `published_seen` ordered its writing before this.
        // The index moves on below, so it is taken once.
        let message = unsafe { self.ring.take(self.consumed) };
        self.consumed = self.consumed.wrapping_add(1);
        self.ring.receiver.index.store(self.consumed, Ordering::Release);
        Some(message)
    }

    /// Whether no published message is waiting at this moment.
    pub fn is_empty(&mut self) -> bool {
        if self.consumed == self.published_seen {
            self.published_seen = self.ring.sender.index.load(Ordering::Acquire);
        }
        self.consumed == self.published_seen
    }
}

impl<T> Receiver<T> {
    /// Whether the sender was dropped.
    ///
    /// Messages published before that are still there: the end is reached when this is true and a
    /// [`Receiver::pop`] after it returns `None`.
    pub fn is_disconnected(&self) -> bool {
        self.ring.sender.gone.load(Ordering::Acquire)
    }
}

impl<T> Drop for Receiver<T> {
    /// Messages that were not taken are dropped when the sender is gone too.
    fn drop(&mut self) {
        self.ring.receiver.gone.store(true, Ordering::Release);
    }
}
