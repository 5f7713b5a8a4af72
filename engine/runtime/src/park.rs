//! The park/wake word: how a core goes to sleep without missing a message.
//!
//! ```text
//!   owner                               another thread
//!   prepare()      word = SLEEPING      publish the message
//!                  fence                fence                          notify()
//!   look once more for messages         look at the word
//!   sleep, or cancel()                  SLEEPING -> NOTIFIED: wake the owner
//!   awake()
//! ```
//!
//! **No message is left behind while the owner sleeps.** Take a message and the first `prepare` of
//! the owner whose fence comes after the notifier's fence in the one order that all SeqCst fences
//! have. The look that follows that `prepare` sees the message, so the owner does not sleep over it
//! there (without such a `prepare` the owner goes on looking and finds it). For every earlier
//! `prepare` the notifier's look at the word sees its SLEEPING or a value stored after it, and each
//! case ends that sleep: SLEEPING is claimed by this notifier, or its exchange fails because of one
//! of the other two; NOTIFIED means that another notifier has claimed this sleep and delivers;
//! AWAKE means that the owner is up already. This needs no order from the word itself, only the
//! fences, so all its accesses are Relaxed. The messages are handed over by the mailbox's own
//! indices.
//!
//! **At most one wake-up per sleep.** SLEEPING is stored by one successful `prepare`, and only one
//! exchange can take it away.
//!
//! **The price of notifying an owner that is awake** is one fence per published batch and a plain
//! load: the word's line stays shared in every core's cache until the owner sleeps, because
//! notifiers write to it only to claim a sleep. An asymmetric barrier (`membarrier` by the sleeper)
//! would save the notifier's fence, and charge each falling asleep with a system call that
//! interrupts every running thread of the process; per batch the fence is the smaller price.
//!
//! **What wakes the owner must keep** until the owner has slept: a wake-up that is delivered
//! between `prepare` and the blocking call makes that call return at once (an eventfd's counter, a
//! completion in the ring). The owner therefore never consumes wake-ups between the two. A wake-up
//! that arrives late, for a sleep that ended otherwise, ends some later sleep early, and nothing
//! worse.

use crate::sync::{AtomicU32, Ordering, fence};

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

/// The owner looks for messages itself; nobody needs to wake it.
const AWAKE: u32 = 0;
/// The owner sleeps or is about to; the next notifier wakes it.
const SLEEPING: u32 = 1;
/// A notifier has taken it upon itself to wake the owner, which has not acknowledged that.
const NOTIFIED: u32 = 2;

/// One core's word. The owner is the one thread that calls [`ParkWord::prepare`],
/// [`ParkWord::cancel`] and [`ParkWord::awake`]; any thread may call [`ParkWord::notify`].
///
/// In AWAKE and NOTIFIED only the owner changes the word, in SLEEPING both sides may.
#[repr(align(128))]
pub struct ParkWord {
    state: AtomicU32,
}

impl ParkWord {
    /// The word of an owner that is awake.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { state: AtomicU32::new(AWAKE) }
    }

    /// The word of an owner that is awake.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self { state: AtomicU32::new(AWAKE) }
    }

    /// The owner announces that it is about to sleep.
    ///
    /// True: the owner looks at everything once more that others may have published; if there is
    /// anything it calls [`ParkWord::cancel`], otherwise it sleeps and then calls
    /// [`ParkWord::awake`]. False: a wake-up for an earlier, cancelled sleep is still under way.
    /// The owner stays awake for another turn, in which it receives that wake-up if it has arrived;
    /// it is forgotten here, so the next call returns true.
    #[must_use = "false means that the owner must not sleep"]
    pub fn prepare(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        assert!(state != SLEEPING, "prepare, with no cancel or awake since the last one");
        if state == NOTIFIED {
            self.state.store(AWAKE, Ordering::Relaxed);
            return false;
        }
        self.state.store(SLEEPING, Ordering::Relaxed);
        // Pairs with the fence in `notify`.
        fence(Ordering::SeqCst);
        true
    }

    /// The owner found something to do after [`ParkWord::prepare`] and does not sleep.
    pub fn cancel(&self) {
        let result = self.state.compare_exchange(
            SLEEPING,
            AWAKE,
            Ordering::Relaxed,
            // A notifier was faster: NOTIFIED stays, for the next `prepare` to see.
            Ordering::Relaxed,
        );
        assert!(result != Err(AWAKE), "cancel without prepare");
    }

    /// The owner has slept, and is up again for whatever reason.
    pub fn awake(&self) {
        self.state.store(AWAKE, Ordering::Relaxed);
    }

    /// Called by any thread after it has published something for the owner.
    ///
    /// True: the owner sleeps or is about to, and this caller, alone, must deliver the wake-up.
    /// False: there is nothing to do.
    #[must_use = "true means that the caller must wake the owner"]
    pub fn notify(&self) -> bool {
        // Pairs with the fence in `prepare`: what was published before is visible to the owner's
        // last look, or its SLEEPING is visible to this load.
        fence(Ordering::SeqCst);
        self.state.load(Ordering::Relaxed) == SLEEPING
            && self
                .state
                .compare_exchange(SLEEPING, NOTIFIED, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

impl Default for ParkWord {
    fn default() -> Self {
        Self::new()
    }
}
