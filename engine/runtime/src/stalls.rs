//! Who has held a core for too long. Pure: nanoseconds in, figures and lines for the log out.

use crate::env::{TASK_QUEUES, TaskQueue};
use crate::line_limit::LineLimit;

/// From one line to the next it takes so many nanoseconds at least.
const QUIET_NANOSECONDS: u64 = 10_000_000_000;

/// How often, and for how long, something held the core beyond the bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StallFigures {
    /// How often, by task queue. What is done without a task is in that of
    /// [`TaskQueue::Foreground`].
    pub counts: [u64; TASK_QUEUES],
    /// The longest, in nanoseconds.
    pub longest: u64,
}

/// Notes what held the core beyond a bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stalls {
    /// `u64::MAX` for none.
    bound: u64,
    figures: StallFigures,
    lines: LineLimit,
}

impl Stalls {
    /// Nothing may hold the core for longer than `bound` nanoseconds without being noted; 0 notes
    /// nothing.
    pub(crate) fn new(bound: u64) -> Self {
        let bound = if bound == 0 { u64::MAX } else { bound };
        Self { bound, figures: StallFigures::default(), lines: LineLimit::new(QUIET_NANOSECONDS) }
    }

    /// Whether something that held the core for so long is to be noted.
    #[inline]
    pub(crate) fn is_stall(&self, nanoseconds: u64) -> bool {
        nanoseconds > self.bound
    }

    /// Notes a stall that ended at `now`. Returns how many before it were left out of the log if
    /// this one is to be told there.
    pub(crate) fn note(&mut self, queue: TaskQueue, nanoseconds: u64, now: u64) -> Option<u64> {
        self.figures.counts[queue as usize] += 1;
        self.figures.longest = self.figures.longest.max(nanoseconds);
        self.lines.admit(now)
    }

    pub(crate) fn figures(&self) -> StallFigures {
        self.figures
    }
}

/// What a task is called in the log: the last two names of the path of its future's type, such as
/// `background::keep_compacting`.
pub(crate) fn task_name(type_name: &str) -> String {
    let mut depth = 0usize;
    let mut path = String::with_capacity(type_name.len());
    for character in type_name.chars() {
        match character {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            _ if depth == 0 => path.push(character),
            _ => {}
        }
    }
    let is_name = |part: &&str| !part.is_empty() && *part != "{{closure}}";
    let names: Vec<&str> = path.split("::").filter(is_name).collect();
    let last = &names[names.len().saturating_sub(2)..];
    if last.is_empty() { type_name.to_owned() } else { last.join("::") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    #[test]
    fn every_stall_counts_and_few_are_told() {
        let mut stalls = Stalls::new(10 * MILLISECOND);
        assert!(!stalls.is_stall(10 * MILLISECOND) && stalls.is_stall(10 * MILLISECOND + 1));
        let told: Vec<u64> = (1..=1000)
            .filter_map(|step| {
                let queue = if step % 10 == 0 { TaskQueue::Flush } else { TaskQueue::Foreground };
                stalls.note(queue, step * MILLISECOND, step * 30 * MILLISECOND)
            })
            .collect();
        // 30 s, a line every 10 s.
        assert_eq!(told, [0, 333, 333]);
        let figures = stalls.figures();
        assert_eq!((figures.counts, figures.longest), ([900, 100, 0, 0, 0, 0], 1000 * MILLISECOND));
    }

    #[test]
    fn a_bound_of_zero_notes_nothing() {
        assert!(!Stalls::new(0).is_stall(u64::MAX));
    }

    #[test]
    fn tasks_are_called_by_what_they_do() {
        for (type_name, name) in [
            (
                "larder_engine::shard::background::<impl larder_engine::shard::Shard<larder_runtime\
                 ::file_cache::FileCache<E>>>::keep_compacting::{{closure}}",
                "background::keep_compacting",
            ),
            ("larder::service::ticks::count_seconds<E>::{{closure}}", "ticks::count_seconds"),
            ("<A as B>::run::{{closure}}::{{closure}}", "run"),
            ("future", "future"),
            ("<A>", "<A>"),
            ("", ""),
            (">>a::b", "a::b"),
        ] {
            assert_eq!(task_name(type_name), name, "{type_name}");
        }
    }
}
