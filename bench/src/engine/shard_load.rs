//! The load on one shard: operations are given to the engine as the node gives them, held until the
//! log has acknowledged what they show, and judged.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use larder_engine::error::EngineError;
use larder_engine::key::Key;
use larder_engine::operation::{Delete, Operation, Outcome, Read, Store, StoreMode};
use larder_engine::shard::{Answer, Attempt, OperationBuf, Shard};
use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::ring_env::RingEnv;

use super::EngineSettings;
use super::alarm::Alarm;
use super::expectations::{Expectations, Expected, Found};
use super::script::{Action, Phase};
use super::shard_keys::ShardKeys;
use super::shard_pages::{PageCounts, ShardPages};
use super::shard_phase::{ShardEnd, ShardPhase};
use super::stall::{LastCompletion, Stall};
use super::tally::{Failure, Tally};
use super::windows::WindowRecorder;
use crate::load::data::{KeyFormat, ValueFormat};

/// Operations that are given to a shard before its thread looks at the ring again, and those beside
/// the workload.
const TURN_OPERATIONS: usize = 64;
const TURN_OPERATIONS_BESIDE: usize = 8;

type Engine = Shard<RingEnv>;

/// What was asked of the engine.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    action: Action,
    /// The stream beside the workload that it is of, if it is not the workload's.
    beside: Option<usize>,
    expected: Expected,
    /// From when the latency counts, in nanoseconds since the phase's start.
    since: u64,
    /// The Unix second in which it was given to the engine.
    given: u32,
}

/// What the engine did with it.
#[derive(Debug)]
enum Ended {
    Written,
    Found(Found),
    Page(PageCounts),
    Failed(EngineError),
}

/// An operation whose answer may be given once the log is acknowledged up to `needs`.
struct Held {
    needs: u64,
    ticket: Ticket,
    ended: Ended,
}

/// Where the shard's thread counts.
pub(super) struct Counting<'a> {
    pub(super) windows: &'a mut WindowRecorder,
    pub(super) tally: &'a mut Tally,
    /// Of what goes on beside the workload.
    pub(super) beside: &'a mut Tally,
    pub(super) last: &'a LastCompletion,
    /// The longest time without a completion on any shard that this thread ended.
    pub(super) stall_of_all: &'a mut Stall,
}

/// One shard and what is done to it.
pub(super) struct ShardLoad {
    pub(super) number: u16,
    shards: u16,
    env: RingEnv,
    engine: Rc<Engine>,
    keys: ShardKeys,
    expectations: Expectations,
    key_format: KeyFormat,
    values: Rc<ValueFormat>,
    pages: Rc<RefCell<ShardPages>>,
    key: Vec<u8>,
    value: Vec<u8>,
    running: Option<ShardPhase>,
    /// In the order of what they need.
    held: VecDeque<Held>,
    /// Those that had to wait inside the engine and have ended.
    ended: Rc<RefCell<Vec<Held>>>,
    /// Wakes the thread when the next operation is due.
    alarm: Alarm,
    /// The same for what goes on beside the workload.
    beside_alarm: Alarm,
}

/// An operation that is begun.
#[derive(Clone, Copy)]
struct Begun {
    action: Action,
    beside: Option<usize>,
    /// From when its latency counts.
    since: u64,
}

impl ShardLoad {
    /// The load on `engine`, shard `number` of `shards`, of whose data `expectations` says what is
    /// known.
    pub(super) fn new(
        settings: &EngineSettings,
        (number, shards): (u16, u16),
        env: RingEnv,
        engine: Rc<Engine>,
        (keys, expectations): (ShardKeys, Expectations),
    ) -> Self {
        Self {
            number,
            shards,
            alarm: Alarm::new(env.clone()),
            beside_alarm: Alarm::new(env.clone()),
            env,
            engine,
            keys,
            expectations,
            key_format: KeyFormat::new(settings.key_size),
            values: Rc::new(ValueFormat::new(settings.value_size)),
            pages: Rc::new(RefCell::new(ShardPages::new(settings.keys_only, settings.value_size))),
            key: Vec::new(),
            value: Vec::new(),
            running: None,
            held: VecDeque::new(),
            ended: Rc::default(),
        }
    }

    /// The engine, and what is known of its keys: for closing, and going on with it later.
    pub(super) fn into_parts(self) -> (Rc<Engine>, (ShardKeys, Expectations)) {
        (self.engine, (self.keys, self.expectations))
    }

    /// Begins a phase.
    pub(super) fn begin(&mut self, settings: &EngineSettings, phase: Phase, start: Instant) {
        assert!(self.held.is_empty() && self.running.is_none(), "one phase at a time");
        let place = (self.number, self.shards);
        self.running = Some(ShardPhase::new(settings, phase, place, self.keys.count(), start));
    }

    /// Keys that are there, as far as is known.
    pub(super) fn live_keys(&mut self) -> u64 {
        self.expectations.live(self.unix_now())
    }

    /// Why the shard takes no more writes, if so.
    pub(super) fn stopped(&self) -> Option<String> {
        self.engine.stopped()
    }

    /// Whether keys will expire.
    pub(super) fn expires(&self) -> bool {
        self.expectations.expires()
    }

    /// Ends the phase, and says what it came to.
    pub(super) fn end_phase(&mut self) -> ShardEnd {
        self.running.take().expect("a phase was begun").sum_up()
    }

    /// Whether the phase is over: nothing more begins and all that began has ended.
    pub(super) fn is_over(&self) -> bool {
        self.running.as_ref().is_none_or(ShardPhase::is_over)
    }

    /// Gives operations to the engine and takes what has ended. Returns whether there is more to do
    /// at once.
    pub(super) fn turn(&mut self, settings: &EngineSettings, counting: &mut Counting<'_>) -> bool {
        let Some(running) = &self.running else { return false };
        let in_flight_max = settings.in_flight_max(running.phase);
        let mut now = running.now();
        let unix_now = self.unix_now();
        self.take_ended();
        self.release(now, unix_now, counting);
        let mut begun = 0;
        while begun < TURN_OPERATIONS
            && let Some((action, since)) = self.next(now, in_flight_max)
        {
            self.execute(Begun { action, beside: None, since }, settings.ttl, unix_now);
            begun += 1;
            now = self.running.as_ref().expect("it goes on").now();
            self.release(now, unix_now, counting);
        }
        if begun < TURN_OPERATIONS {
            self.set_alarm(now, in_flight_max);
        }
        let begun_beside = self.turn_beside(settings, unix_now);
        begun > 0 || begun_beside > 0
    }

    /// Gives operations beside the workload to the engine; returns how many.
    fn turn_beside(&mut self, settings: &EngineSettings, unix_now: u32) -> usize {
        let mut begun = 0;
        while begun < TURN_OPERATIONS_BESIDE
            && let Some(running) = &mut self.running
            && let now = running.now()
            && let Some((stream, action)) = running.next_beside(now)
        {
            let operation = Begun { action, beside: Some(stream), since: now };
            self.execute(operation, settings.ttl, unix_now);
            begun += 1;
        }
        if let Some(running) = &self.running {
            let now = running.now();
            if let Some(due) = running.beside_due(now) {
                self.beside_alarm.set(due.min(running.end).saturating_sub(now));
            }
        }
        begun
    }

    /// The next operation, if one may begin now, and from when its latency counts.
    fn next(&mut self, now: u64, concurrency: usize) -> Option<(Action, u64)> {
        let running = self.running.as_mut()?;
        let since = running.may_begin(now, concurrency)?;
        let action = running.script.next()?;
        running.in_flight += 1;
        running.stall.due(since);
        Some((action, since))
    }

    /// Gives one operation to the engine.
    fn execute(&mut self, begun: Begun, ttl: Option<u32>, given: u32) {
        let Begun { action, beside, since } = begun;
        let (place, number) = match action {
            Action::Store(place) | Action::Read(place) | Action::Delete(place) => {
                (Some(place), self.keys.number(place))
            }
            Action::ReadMissing(index) => (None, self.keys.missing(index)),
            Action::ReadPage => return self.read_page(begun, given),
        };
        self.key.clear();
        self.key_format.append(number, &mut self.key);
        let expected = place.map_or(Expected::Absent, |place| self.expectations.of(place));
        let expiry = ttl.map_or(0, |ttl| given.saturating_add(ttl));
        let version = match action {
            Action::Store(place) => self.expectations.next_version(place),
            _ => 0,
        };
        self.value.clear();
        let operation = match action {
            Action::Store(_) => {
                self.values.append_version(number, version, &mut self.value);
                store(&self.value, expiry)
            }
            Action::Read(_) | Action::ReadMissing(_) => {
                Operation::Read(Read { value: true, ..Read::default() })
            }
            Action::Delete(_) => Operation::Delete(Delete::default()),
            Action::ReadPage => unreachable!("a page is about no key"),
        };
        let ticket = Ticket { action, beside, expected, since, given };
        let key = Key::memcached(&self.key);
        let values = &self.values;
        let attempt = self
            .engine
            .try_execute(&key, None, &operation, given, |answer| inspect(answer, number, values));
        let held = match attempt {
            Attempt::Done { value: ended, needs } => Some(Held { needs, ticket, ended }),
            Attempt::Failed(error) => Some(Held { needs: 0, ticket, ended: Ended::Failed(error) }),
            Attempt::Later => {
                self.execute_later(ticket, &key, &operation, number);
                self.running.as_mut().expect("it goes on").waited += 1;
                None
            }
        };
        let is_given = held.as_ref().is_none_or(|held| !matches!(held.ended, Ended::Failed(_)));
        match action {
            Action::Store(place) if is_given => self.expectations.stored(place, version, expiry),
            Action::Delete(place) if is_given => self.expectations.deleted(place),
            _ => {}
        }
        if let Some(held) = held {
            self.hold(held);
        }
    }

    /// Has the operation carried out in a task, because it has to wait for something.
    fn execute_later(&self, ticket: Ticket, key: &Key<'_>, operation: &Operation<'_>, number: u64) {
        let values = Rc::clone(&self.values);
        let ended = Rc::clone(&self.ended);
        let operation = OperationBuf::new(operation);
        let execution = self.engine.execute(key, operation);
        self.env.spawn(TaskQueue::Foreground, async move {
            let held = match execution.await {
                Ok((answer, needs)) => {
                    let ended = inspect(&answer.as_answer(), number, &values);
                    Held { needs, ticket, ended }
                }
                Err(error) => Held { needs: 0, ticket, ended: Ended::Failed(error) },
            };
            ended.borrow_mut().push(held);
        });
    }

    /// Has the next page of the scan read by a task.
    fn read_page(&self, begun: Begun, given: u32) {
        let (pages, ended) = (Rc::clone(&self.pages), Rc::clone(&self.ended));
        let Begun { action, beside, since } = begun;
        let ticket = Ticket { action, beside, expected: Expected::Unknown, since, given };
        let scan = self.engine.scan(pages.borrow().scan());
        self.env.spawn(TaskQueue::Foreground, async move {
            let held = match scan.await {
                Ok(page) => {
                    let needs = page.needs;
                    Held { needs, ticket, ended: Ended::Page(pages.borrow().count(page)) }
                }
                Err(error) => Held { needs: 0, ticket, ended: Ended::Failed(error) },
            };
            ended.borrow_mut().push(held);
        });
    }

    fn take_ended(&mut self) {
        let ended = std::mem::take(&mut *self.ended.borrow_mut());
        for held in ended {
            if let (Ended::Failed(_), Action::Store(place) | Action::Delete(place)) =
                (&held.ended, held.ticket.action)
            {
                self.expectations.doubt(place);
            }
            self.hold(held);
        }
    }

    fn hold(&mut self, held: Held) {
        let comes_last = self.held.back().is_none_or(|last| last.needs <= held.needs);
        if comes_last {
            self.held.push_back(held);
        } else {
            let index = self.held.partition_point(|other| other.needs <= held.needs);
            self.held.insert(index, held);
        }
    }

    /// Ends the operations whose answer may be given.
    fn release(&mut self, now: u64, unix_now: u32, counting: &mut Counting<'_>) {
        let acknowledged = self.engine.acknowledged_end();
        let mut count = 0;
        while self.held.front().is_some_and(|held| held.needs <= acknowledged) {
            let held = self.held.pop_front().expect("it was seen just now");
            let running = self.running.as_mut().expect("what was begun is of a phase");
            match held.ticket.beside {
                Some(stream) => running.beside[stream].in_flight -= 1,
                None => count += 1,
            }
            self.end(held.ticket, held.ended, (now, unix_now), counting);
        }
        let Some(running) = self.running.as_mut().filter(|_| count > 0) else { return };
        running.in_flight -= count;
        let is_waiting = running.in_flight > 0 || running.wants_another(now);
        let since = running.stall.completed(now, is_waiting);
        *counting.stall_of_all = counting.last.completed(now, since).max(*counting.stall_of_all);
    }

    /// Counts and judges an operation that has ended at `now`.
    fn end(
        &mut self,
        ticket: Ticket,
        ended: Ended,
        (now, unix_now): (u64, u32),
        counting: &mut Counting<'_>,
    ) {
        let mut count = Count::of(&ticket, counting);
        let latency = now.saturating_sub(ticket.since);
        let found = match ended {
            Ended::Failed(error) => {
                count.failed();
                count.tally.fail(Failure::of(&error), || error.to_string());
                if ticket.action == Action::ReadPage
                    && let Some(running) = &mut self.running
                {
                    // The next page would be the same one.
                    running.script_of(ticket.beside).finish();
                }
                return;
            }
            Ended::Written => {
                count.tally.stored += 1;
                count.completed(latency);
                return;
            }
            Ended::Page(page) => {
                count.completed(latency);
                self.end_page(page, &mut count);
                return;
            }
            Ended::Found(found) => found,
        };
        count.completed(latency);
        count.tally.note_found(&found);
        let (place, number) = match ticket.action {
            Action::ReadMissing(index) => (None, self.keys.missing(index)),
            Action::Store(place) | Action::Read(place) | Action::Delete(place) => {
                (Some(place), self.keys.number(place))
            }
            Action::ReadPage => unreachable!("a page is about no key"),
        };
        let seconds = (ticket.given, unix_now);
        let place_or_first = place.unwrap_or_default();
        let judged = match place {
            None if found == Found::Nothing => Ok(()),
            None => Err("found, though it was never stored".to_owned()),
            Some(place) => self.expectations.judge(place, ticket.expected, &found, seconds),
        };
        if let Err(what) = judged {
            count.failed();
            count.tally.fail(Failure::WrongValue, || format!("key number {number}: {what}"));
        } else if ticket.expected == Expected::Unknown {
            self.expectations.learn(place_or_first, &found);
        }
    }

    /// Counts a page. Behind the last one a scan that has no time limit ends.
    fn end_page(&mut self, page: PageCounts, count: &mut Count<'_>) {
        count.tally.scanned += page.items;
        count.tally.scanned_bytes += page.bytes;
        if page.wrong > 0 {
            let text = || format!("{} items of a page have a value of a wrong length", page.wrong);
            count.tally.fail(Failure::WrongValue, text);
        }
        let Some(items) = self.pages.borrow_mut().advance(page) else { return };
        if let Some(live) = self.expectations.certain().filter(|live| *live != items) {
            let text = || format!("a scan has shown {items} items of {live}");
            count.tally.fail(Failure::WrongValue, text);
        }
        let is_workload = count.windows.is_some();
        if let Some(running) = &mut self.running
            && running.end == u64::MAX
            && is_workload
        {
            running.script.finish();
        }
    }

    /// Has the thread woken when the next operation is due.
    fn set_alarm(&self, now: u64, concurrency: usize) {
        let Some(running) = &self.running else { return };
        let Some(due) = running.pace.due(running.script.taken()) else { return };
        if running.in_flight >= concurrency || running.script.is_over() {
            return;
        }
        self.alarm.set(due.min(running.end).saturating_sub(now));
    }

    fn unix_now(&self) -> u32 {
        u32::try_from(self.env.unix_seconds()).unwrap_or(u32::MAX)
    }
}

/// Where one operation is counted: only those of the workload have latencies.
struct Count<'a> {
    tally: &'a mut Tally,
    windows: Option<&'a mut WindowRecorder>,
}

impl<'a> Count<'a> {
    fn of(ticket: &Ticket, counting: &'a mut Counting<'_>) -> Self {
        match ticket.beside {
            Some(_) => Self { tally: counting.beside, windows: None },
            None => Self { tally: counting.tally, windows: Some(counting.windows) },
        }
    }

    fn completed(&mut self, latency: u64) {
        if let Some(windows) = &mut self.windows {
            windows.completed(latency);
        }
    }

    fn failed(&mut self) {
        if let Some(windows) = &mut self.windows {
            windows.failed();
        }
    }
}

fn store(value: &[u8], expiry: u32) -> Operation<'_> {
    Operation::Store(Store {
        mode: StoreMode::Set,
        value,
        client_flags: 0,
        expiry,
        compare: None,
        invalidate: false,
        is_large: false,
        vivify: None,
        version: None,
    })
}

/// What an answer about key `number` says.
fn inspect(answer: &Answer<'_>, number: u64, values: &ValueFormat) -> Ended {
    Ended::Found(match answer.outcome {
        Outcome::Stored => return Ended::Written,
        Outcome::Miss | Outcome::NotFound => Found::Nothing,
        Outcome::Deleted => Found::Item,
        Outcome::Hit => match values.version_of(number, answer.value) {
            Ok(version) => Found::Version(version),
            Err(what) => Found::Foreign(what.into()),
        },
        other => Found::Foreign(format!("the answer {other:?}").into()),
    })
}
