//! A wake-up at a time to come, for what is looked at once per turn.

use std::cell::Cell;
use std::rc::Rc;

use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::ring_env::RingEnv;

/// Wakes a core's thread later; at most one wake-up of an alarm is under way.
pub(super) struct Alarm {
    env: RingEnv,
    is_set: Rc<Cell<bool>>,
}

impl Alarm {
    pub(super) fn new(env: RingEnv) -> Self {
        Self { env, is_set: Rc::default() }
    }

    /// Has the core take another turn in so many nanoseconds, unless it will already.
    pub(super) fn set(&self, nanoseconds: u64) {
        if self.is_set.replace(true) {
            return;
        }
        let is_set = Rc::clone(&self.is_set);
        let sleep = self.env.sleep(nanoseconds);
        self.env.spawn(TaskQueue::Foreground, async move {
            sleep.await;
            is_set.set(false);
        });
    }
}
