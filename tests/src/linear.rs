//! Whether what clients saw of one key can have happened one operation after the other.
//!
//! Each operation has a time at which it was asked for and one at which its answer was there; it
//! must have taken effect at one moment between them. One whose answer never came may have taken
//! effect until the server was gone, or not at all. The search is that of Wing and Gong, which
//! tries each operation that may be the next; what was tried before, the same operations done and
//! the same state, is not tried again (Lowe). One without an answer that can follow no more counts
//! as done, whether it was or not: nothing that follows depends on it but the state.

use std::collections::HashSet;

/// What is asked of the key. Numbers stand for values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read it.
    Get,
    /// Store a value.
    Set(u64),
    /// Store a value if there is none.
    Add(u64),
    /// Add to the value if there is one.
    Increment(u64),
    /// Delete it.
    Delete,
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The value that is there, if any; of an increment, the new one.
    Value(Option<u64>),
    /// Whether it was done.
    Done(bool),
}

/// An operation as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What was asked for.
    pub action: Action,
    /// When, on a clock that all clients share.
    pub asked_at: u64,
    /// When the answer was there, or the server was gone.
    pub ended_at: u64,
    /// The answer; `None` if none came.
    pub output: Option<Output>,
}

/// What an action makes of a value, and what it is answered.
fn apply(state: Option<u64>, action: Action) -> (Option<u64>, Output) {
    match (action, state) {
        (Action::Get, state) => (state, Output::Value(state)),
        (Action::Set(value), _) | (Action::Add(value), None) => (Some(value), Output::Done(true)),
        (Action::Add(_), Some(_)) => (state, Output::Done(false)),
        (Action::Increment(by), Some(value)) => {
            let sum = value.wrapping_add(by);
            (Some(sum), Output::Value(Some(sum)))
        }
        (Action::Increment(_), None) => (None, Output::Value(None)),
        (Action::Delete, state) => (None, Output::Done(state.is_some())),
    }
}

/// A set of operations, as bits.
type Done = Vec<u64>;

fn has(done: &Done, index: usize) -> bool {
    done[index / 64] & (1 << (index % 64)) != 0
}

/// One step of the search: what was done, what it has made, and which operation is tried next.
struct Step {
    done: Done,
    state: Option<u64>,
    /// When the latest of those done was asked for.
    latest: u64,
    /// Every operation before this one in the order of asking is done.
    first: usize,
    next: usize,
}

/// Checks what happened to a key that holds nothing at first.
///
/// # Errors
/// An order that explains as many operations as any does, and those that cannot follow, for people.
pub fn check(history: &[Operation]) -> Result<(), String> {
    let mut operations = history.to_vec();
    operations.sort_by_key(|operation| operation.asked_at);
    let answered = operations.iter().filter(|operation| operation.output.is_some()).count();
    let words = operations.len().div_ceil(64);
    let begin = Step { done: vec![0; words], state: None, latest: 0, first: 0, next: 0 };
    let mut steps = vec![begin];
    let mut seen: HashSet<(Done, Option<u64>)> = HashSet::new();
    let mut best = (0, String::new());
    while let Some(step) = steps.last_mut() {
        let is_answered = |index: &usize| operations[*index].output.is_some();
        let explained =
            (0..operations.len()).filter(|index| has(&step.done, *index)).filter(is_answered);
        if step.next == step.first {
            let explained = explained.count();
            if explained == answered {
                return Ok(());
            }
            if explained > best.0 || best.1.is_empty() {
                best = (explained, describe(&operations, step));
            }
        }
        match next_step(&operations, step) {
            Some(next) => {
                if seen.insert((next.done.clone(), next.state)) {
                    steps.push(next);
                }
            }
            None => {
                steps.pop();
            }
        }
    }
    Err(format!("{} of {answered} answers can be explained; {}", best.0, best.1))
}

/// Tries the next operation that may follow; `None` if there is none left to try.
fn next_step(operations: &[Operation], step: &mut Step) -> Option<Step> {
    // Whatever is done next must not have been asked for after another's end.
    let open = || (step.first..operations.len()).filter(|index| !has(&step.done, *index));
    let bound = open()
        .map(|index| operations[index])
        .filter(|operation| operation.output.is_some())
        .map(|operation| operation.ended_at)
        .min();
    let bound = bound.unwrap_or(u64::MAX);
    let begin = step.next;
    for (index, operation) in operations.iter().enumerate().skip(begin) {
        if operation.asked_at > bound {
            break;
        }
        step.next = index + 1;
        if has(&step.done, index) || operation.ended_at < step.latest {
            continue;
        }
        let (state, output) = apply(step.state, operation.action);
        if operation.output.is_some_and(|seen| seen != output) {
            continue;
        }
        let mut done = step.done.clone();
        done[index / 64] |= 1 << (index % 64);
        let latest = step.latest.max(operation.asked_at);
        pass_over(operations, step.first, latest, &mut done);
        let mut first = step.first;
        while first < operations.len() && has(&done, first) {
            first += 1;
        }
        return Some(Step { done, state, latest, first, next: first });
    }
    step.next = operations.len();
    None
}

/// Marks those without an answer that ended before the latest of what was done was asked for.
fn pass_over(operations: &[Operation], first: usize, latest: u64, done: &mut Done) {
    for (index, operation) in operations.iter().enumerate().skip(first) {
        if operation.asked_at > latest {
            break;
        }
        if operation.output.is_none() && operation.ended_at < latest {
            done[index / 64] |= 1 << (index % 64);
        }
    }
}

/// Where a search has come to, and what is open there.
fn describe(operations: &[Operation], step: &Step) -> String {
    let open = (step.first..operations.len()).filter(|index| !has(&step.done, *index));
    let open: Vec<String> = open.take(8).map(|index| format!("{:?}", operations[index])).collect();
    format!("the key holds {:?} then, and next are\n  {}", step.state, open.join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;

    fn operation(asked_at: u64, ended_at: u64, action: Action, output: Output) -> Operation {
        Operation { action, asked_at, ended_at, output: Some(output) }
    }

    const DONE: Output = Output::Done(true);

    fn get(asked_at: u64, ended_at: u64, value: Option<u64>) -> Operation {
        operation(asked_at, ended_at, Action::Get, Output::Value(value))
    }

    fn set(asked_at: u64, ended_at: u64, value: u64) -> Operation {
        operation(asked_at, ended_at, Action::Set(value), DONE)
    }

    fn lost(asked_at: u64, ended_at: u64, action: Action) -> Operation {
        Operation { action, asked_at, ended_at, output: None }
    }

    #[test]
    fn what_can_be_is_accepted() {
        for history in [
            vec![],
            vec![get(0, 1, None), set(2, 3, 7), get(4, 5, Some(7))],
            // A read beside a write may see either.
            vec![set(0, 10, 1), get(1, 2, None), get(3, 4, Some(1))],
            vec![set(0, 10, 1), set(0, 10, 2), get(11, 12, Some(1))],
            // What was not answered may be done, at once or late, or not.
            vec![lost(0, 5, Action::Set(1)), get(6, 7, Some(1))],
            vec![lost(0, 5, Action::Set(1)), get(6, 7, None)],
            vec![lost(0, 9, Action::Set(1)), get(1, 2, None), get(3, 4, Some(1))],
            vec![
                set(0, 1, 5),
                operation(2, 9, Action::Increment(2), Output::Value(Some(10))),
                operation(2, 9, Action::Increment(3), Output::Value(Some(8))),
                get(10, 11, Some(10)),
            ],
            vec![
                operation(0, 9, Action::Add(1), DONE),
                operation(0, 9, Action::Add(2), Output::Done(false)),
                operation(10, 11, Action::Delete, DONE),
                operation(12, 13, Action::Increment(1), Output::Value(None)),
            ],
        ] {
            assert_eq!(check(&history), Ok(()), "{history:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for history in [
            vec![get(0, 1, Some(7))],
            vec![set(0, 1, 7), get(2, 3, None)],
            // An old value after a new one was seen.
            vec![set(0, 1, 1), set(2, 20, 2), get(3, 4, Some(2)), get(5, 6, Some(1))],
            // A lost write that comes back after it was seen to be missing.
            vec![lost(0, 5, Action::Set(1)), get(6, 7, None), get(8, 9, Some(1))],
            // One that takes effect after the server was gone.
            vec![lost(0, 5, Action::Set(1)), set(6, 7, 2), get(8, 9, Some(1))],
            // An acknowledged one that is gone after a restart.
            vec![set(0, 1, 1), set(2, 3, 2), lost(4, 5, Action::Set(3)), get(6, 7, Some(1))],
            // Two who both were the first.
            vec![operation(0, 9, Action::Add(1), DONE), operation(0, 9, Action::Add(2), DONE)],
            // An increment that was lost, and one that was made twice.
            vec![
                set(0, 1, 5),
                operation(2, 9, Action::Increment(1), Output::Value(Some(6))),
                operation(2, 9, Action::Increment(1), Output::Value(Some(6))),
            ],
            vec![
                set(0, 1, 5),
                operation(2, 3, Action::Increment(1), Output::Value(Some(6))),
                get(4, 5, Some(7)),
            ],
            vec![set(0, 1, 5), operation(2, 3, Action::Delete, Output::Done(false))],
        ] {
            assert!(check(&history).is_err(), "{history:?}");
        }
    }

    /// What several clients see of a key that does everything at one moment, and loses what is
    /// under way now and then.
    fn recorded(random: &mut Rng, operations: usize) -> Vec<Operation> {
        let (mut state, mut now, mut history) = (None, 10, Vec::new());
        // Of each client, when it is free again.
        let mut free = [0u64; 5];
        for value in 0..operations as u64 {
            let client = random.usize(..free.len());
            now = now.max(free[client]) + random.u64(1..10);
            let action = match random.u8(..6) {
                0 | 1 => Action::Get,
                2 => Action::Set(value),
                3 => Action::Add(value),
                4 => Action::Increment(1 + value),
                _ => Action::Delete,
            };
            // It takes effect now; it may have been asked for long before, and ends later.
            let asked_at = random.u64(free[client]..=now);
            let ended_at = now + random.u64(0..40);
            free[client] = ended_at + 1;
            let is_lost = random.u8(..20) == 0;
            if is_lost && random.bool() {
                history.push(Operation { action, asked_at, ended_at, output: None });
                continue;
            }
            let (after, output) = apply(state, action);
            state = after;
            let output = (!is_lost).then_some(output);
            history.push(Operation { action, asked_at, ended_at, output });
        }
        history
    }

    #[test]
    fn a_key_that_keeps_order_passes_and_one_answer_changed_is_found() {
        let mut found = 0;
        for seed in 0..60 {
            let mut random = Rng::with_seed(seed);
            let mut history = recorded(&mut random, 300);
            assert_eq!(check(&history), Ok(()), "seed {seed}");
            let reads: Vec<usize> = (0..history.len())
                .filter(|index| matches!(history[*index].output, Some(Output::Value(_))))
                .collect();
            let changed = reads[random.usize(..reads.len())];
            // No operation makes this number.
            history[changed].output = Some(Output::Value(Some(u64::MAX / 2)));
            found += usize::from(check(&history).is_err());
        }
        assert_eq!(found, 60);
    }
}
