//! Answers for other cores that may not leave before a log has come so far.

use larder_engine::shard::{Acknowledgement, Answer};
use larder_runtime::core_env::CoreEnv;

use super::shards::{LocalShard, Shards};
use crate::connection::After;
use crate::mesh::Place;
use crate::request::NoAnswer;

/// An answer for another core that may not leave yet; its value stands in the shard's queue.
pub(super) struct HeldAnswer {
    pub(super) core: usize,
    pub(super) place: Place,
    pub(super) needs: u64,
    pub(super) how: Acknowledgement,
    pub(super) answer: Result<Answer<'static>, NoAnswer>,
    pub(super) value_bytes: usize,
}

/// An answer that may leave for the core that its request came from.
pub(super) struct Released<'a> {
    pub core: usize,
    pub place: Place,
    pub answer: Result<&'a Answer<'a>, NoAnswer>,
    /// How long the value was that was held; less is sent if it must never leave.
    pub held_bytes: usize,
}

impl<C: CoreEnv> Shards<C> {
    /// Holds an answer for another core until it may leave.
    pub(super) fn hold(
        &mut self,
        (core, place): (usize, Place),
        answer: Result<&Answer<'_>, NoAnswer>,
        after: After,
    ) {
        let local = self.local[usize::from(after.shard)].as_mut();
        let local = local.expect("answers are held where they come from");
        let value = answer.map_or(&[][..], |answer| answer.value);
        local.held_values.tail().extend_from_slice(value);
        local.held.push_back(HeldAnswer {
            core,
            place,
            needs: after.needs,
            how: after.how,
            answer: answer.map(Answer::without_value),
            value_bytes: value.len(),
        });
    }

    /// Hands out the held answers that may leave.
    pub(super) fn release_held(&mut self, mut deliver: impl FnMut(Released<'_>)) {
        for local in self.local.iter_mut().flatten() {
            if local.held.is_empty() {
                continue;
            }
            let is_stopped = local.stopped.is_some();
            while let Some(held) = local.held.front() {
                let is_acknowledged = local.engine.may_tell(held.needs, held.how);
                if !is_acknowledged && !is_stopped {
                    break;
                }
                let HeldAnswer { core, place, answer, value_bytes: held_bytes, .. } = *held;
                let value = local.held_values.front(held_bytes);
                let answer = answer.map(|answer| answer.with_value(value));
                let answer = if is_acknowledged { answer } else { Err(NoAnswer::Stopped) };
                let answer = answer.as_ref().map_err(|failure| *failure);
                deliver(Released { core, place, answer, held_bytes });
                local.held_values.consume(held_bytes);
                local.held.pop_front();
            }
        }
    }

    /// Bytes of answers for other cores that may not leave yet.
    pub(super) fn held_bytes(&self) -> usize {
        let of_shard = |local: &LocalShard<C>| {
            local.held_values.len() + local.held.len() * size_of::<HeldAnswer>()
        };
        self.local.iter().flatten().map(of_shard).sum()
    }
}
