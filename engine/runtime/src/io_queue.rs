//! The core's disk requests, held back so that the device's own queue stays short.
//!
//! A device serves what it was given in an order of its own, so priorities count only for requests
//! that it does not have yet. This queue keeps requests by class, lets through what the device
//! takes without building up a queue, and chooses the next one by the classes' shares
//! ([`FairQueue`]). It is a plain value: the caller pushes a request, pops those that may go,
//! submits them, says when each has completed, and says what time it is.
//!
//! What may go is bounded in three ways:
//!
//! - by number and bytes in flight;
//! - with a measured device, by tokens that all of its cores share
//!   ([`DeviceGroup`](crate::device_group::DeviceGroup)), at a price that follows what the device
//!   does (`feedback`);
//! - by class: by its cap, and what nobody waits for by the part that is left to it while reads
//!   take too long. A class that has had its part is taken out until it is due, and does not hold
//!   up the others.
//!
//! The next request by shares goes next, even when a smaller one of another class would fit into
//! what is left of a limit and it does not. Otherwise a stream of small requests would hold a large
//! one back forever.

mod core_tokens;
mod feedback;
mod in_flight;
mod options;
mod rate_bucket;
mod statistics;

pub use options::{IoQueueOptions, check_io_class};
pub use statistics::{IoClassStatistics, IoFlow};

use crate::device_group::Claimant;
use crate::device_model::{
    DeviceCosts, IoDirection, LONGEST_REQUEST, TOKENS_PER_MILLISECOND, nanoseconds_of,
};
use crate::env::{IO_CLASSES, IoClass, TASK_QUEUES, TaskQueue};
use crate::fair_queue::FairQueue;
use crate::urgency::{URGENCY_USUAL, Urgencies, urgent_shares};
use core_tokens::CoreTokens;
use feedback::{Feedback, SCALE_BITS};
use in_flight::InFlightCap;
use rate_bucket::RateBucket;

#[cfg(test)]
mod background_tests;
#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod held_back_tests;
#[cfg(test)]
mod tests;

/// How much of the device's time the class with the most shares may have ahead of its part after
/// it was idle: 5 ms, so that a burst of reads goes out whole.
const BURST_TOKENS: u64 = 5 * TOKENS_PER_MILLISECOND;

/// What a class with a cap did not use in so many nanoseconds it may move at once.
const CAP_BURST_NANOSECONDS: u64 = 10_000_000;

/// The core does not wake up for tokens more often than this, in nanoseconds. The bucket holds what
/// comes meanwhile.
const WAIT_MIN: u64 = 20_000;

/// However deep the device's queue should be, a core may always give it so many requests.
const DEPTH_MIN: u64 = 4;

/// What nobody waits for, or who waits has asked for much: it is held back first.
const BACKGROUND: [IoClass; 5] = [
    IoClass::Scan,
    IoClass::Flush,
    IoClass::Compaction,
    IoClass::GarbageCollection,
    IoClass::Scrub,
];

/// A disk request as the queue sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoRequest {
    /// Whom it is charged to.
    pub class: IoClass,
    /// Whether it reads or writes.
    pub direction: IoDirection,
    /// What it moves, in bytes; 0 for a flush.
    pub bytes: u64,
}

/// For how long something may not go on.
#[derive(Clone, Copy, Debug)]
struct Pause {
    since: u64,
    nanoseconds: u64,
}

impl Pause {
    fn end(self) -> u64 {
        self.since.saturating_add(self.nanoseconds)
    }

    /// Whether it is over at `now`. A clock that was set back makes nobody wait for what it showed
    /// before.
    fn is_over(&mut self, now: u64) -> bool {
        self.since = self.since.min(now);
        now - self.since >= self.nanoseconds
    }
}

#[derive(Default)]
struct ClassState {
    statistics: IoClassStatistics,
    bytes_in_flight: u64,
    cap: Option<RateBucket>,
    /// Until what it owes under its cap is paid off.
    pause: Option<Pause>,
    starved_since: Option<u64>,
}

/// One core's queue of disk requests; `T` is whatever the caller submits.
pub struct IoQueue<T> {
    waiting: FairQueue<Waiting<T>>,
    /// The cost of the waiting requests, in tokens, by their usual claimant.
    waiting_cost: [u64; 2],
    in_flight: InFlightCap,
    /// By direction.
    requests_in_flight: [u64; 2],
    costs: DeviceCosts,
    device: Option<Device>,
    classes: [ClassState; IO_CLASSES],
    urgencies: Urgencies,
    /// Until what the background owes is paid off.
    background_pause: Option<Pause>,
    has_pauses: bool,
    /// The time of the latest look at pauses and windows, in nanoseconds.
    round: Option<u64>,
    due: Option<u64>,
}

/// What is known of a measured device.
struct Device {
    tokens: CoreTokens,
    feedback: Feedback,
    /// The part of the device that the background may have, while that is not all of it.
    background: RateBucket,
    /// What a token costs while both directions are in flight, with [`SCALE_BITS`].
    mixed_scale: u64,
}

struct Waiting<T> {
    request: IoRequest,
    since: u64,
    payload: T,
}

impl<T> IoQueue<T> {
    /// An empty queue with the limits of `options`.
    pub fn new(options: IoQueueOptions) -> Self {
        let model = options.device.as_ref().map(|group| *group.model()).unwrap_or_default();
        let depth = model.depth_max.map_or(u64::MAX, |depth| depth.max(DEPTH_MIN));
        let requests_max =
            options.requests_in_flight_max.min(usize::try_from(depth).unwrap_or(usize::MAX));
        let mut queue = Self {
            waiting: FairQueue::new(&options.shares, BURST_TOKENS),
            waiting_cost: [0; 2],
            in_flight: InFlightCap::new(requests_max, options.bytes_in_flight_max),
            requests_in_flight: [0; 2],
            costs: model.costs(),
            device: options.device.map(|group| Device {
                feedback: Feedback::new(model.latency_goal, group.cores()),
                background: RateBucket::new(1, model.latency_goal, 0),
                mixed_scale: (1_000 << SCALE_BITS) / model.mixed_thousandths,
                tokens: CoreTokens::new(group),
            }),
            classes: Default::default(),
            urgencies: Urgencies::default(),
            background_pause: None,
            has_pauses: false,
            round: None,
            due: None,
        };
        for (index, class) in queue.classes.iter_mut().enumerate() {
            class.statistics.usual_shares = options.shares[index];
            class.statistics.shares = options.shares[index];
            class.statistics.bandwidth_max = options.bandwidth_max[index];
            class.cap = options.bandwidth_max[index]
                .map(|rate| RateBucket::new(rate, CAP_BURST_NANOSECONDS, 0));
        }
        queue
    }

    /// The most bytes that one request should have.
    pub fn longest_request(&self, direction: IoDirection) -> u64 {
        if self.device.is_some() { self.costs.longest_request(direction) } else { LONGEST_REQUEST }
    }

    /// Appends a request to its class.
    pub fn push(&mut self, request: IoRequest, payload: T, now: u64) {
        let cost = self.costs.of(request.direction, request.bytes);
        self.waiting.push(request.class as usize, cost, Waiting { request, since: now, payload });
        let waiting_cost = &mut self.waiting_cost[usual_claimant(request.class) as usize];
        *waiting_cost = waiting_cost.saturating_add(cost);
        let class = &mut self.classes[request.class as usize];
        class.statistics.queued += 1;
        class.note_starving(now);
    }

    /// Takes the next request if it may go to the device now, at `now` nanoseconds; it then counts
    /// as in flight until [`IoQueue::complete`] or [`IoQueue::withdraw`]. If there is none,
    /// [`IoQueue::due`] says when to ask again.
    pub fn pop(&mut self, now: u64) -> Option<T> {
        self.due = None;
        if self.round != Some(now) {
            self.round = Some(now);
            self.start_round(now);
        }
        let next = self.waiting.peek().map(|(_, cost, waiting)| (cost, waiting.request));
        let next = next.filter(|(_, request)| self.in_flight.has_room(request.bytes));
        let Some((cost, request)) = next else {
            self.give_up_tokens();
            self.due = self.end_of_pauses(now);
            return None;
        };
        let price = self.price(cost, request.direction);
        let claimant = self.claimant_of(request.class, price);
        let waiting_cost = self.waiting_cost[claimant as usize];
        if let Some(device) = &mut self.device
            && let Err(wait) = device.tokens.take(claimant, price, waiting_cost, now)
        {
            let is_shared = device.tokens.are_shared();
            device.feedback.note_throttled(claimant, is_shared);
            let tokens_due = now.saturating_add(wait.max(WAIT_MIN));
            self.due = self.end_of_pauses(now).into_iter().chain([tokens_due]).min();
            return None;
        }
        let (_, _, Waiting { since, payload, .. }) = self.waiting.pop().expect("seen just now");
        self.dispatch(request, cost, now.saturating_sub(since), now);
        let charged = &mut self.classes[request.class as usize].statistics.charged_tokens;
        *charged = charged.wrapping_add(price);
        Some(payload)
    }

    /// When [`IoQueue::pop`] may bring something that no completion will announce, in nanoseconds;
    /// as of the latest one.
    pub fn due(&self) -> Option<u64> {
        self.due
    }

    /// A request that [`IoQueue::pop`] gave out has ended, well or not. It has moved `moved` bytes
    /// and was `ring_nanoseconds` on its way.
    ///
    /// Completing more than is in flight is a programmer error, and panics.
    pub fn complete(&mut self, request: IoRequest, moved: u64, ring_nanoseconds: u64, now: u64) {
        self.leave(request);
        let class = &mut self.classes[request.class as usize];
        let is_read = request.direction == IoDirection::Read && request.bytes > 0;
        let statistics = &mut class.statistics;
        statistics.completed += 1;
        statistics.reads += u64::from(is_read);
        statistics.bytes = statistics.bytes.wrapping_add(moved);
        statistics.ring_nanoseconds = statistics.ring_nanoseconds.wrapping_add(ring_nanoseconds);
        class.note_starving(now);
        if let Some(device) = &mut self.device {
            let own = nanoseconds_of(self.costs.of(request.direction, request.bytes));
            let delay = ring_nanoseconds.saturating_sub(own);
            device.feedback.note_completed(request, delay);
        }
    }

    /// What [`IoQueue::complete`] is told of next may have ended up to so many nanoseconds before:
    /// the core did not look at the device meanwhile.
    pub fn note_unwatched(&mut self, nanoseconds: u64) {
        if let Some(device) = &mut self.device {
            device.feedback.note_unwatched(nanoseconds);
        }
    }

    /// A request that [`IoQueue::pop`] gave out just now will not go to the device after all: what
    /// it was charged for is given back, and who was to wait for that goes on.
    pub fn withdraw(&mut self, request: IoRequest, now: u64) {
        self.leave(request);
        let index = request.class as usize;
        let cost = self.costs.of(request.direction, request.bytes);
        let price = self.price(cost, request.direction);
        self.waiting.give_back(index, cost);
        let mut is_background_free = false;
        if let Some(device) = &mut self.device {
            device.tokens.put_back(usual_claimant(request.class), price);
            device.feedback.note_withdrawn();
            is_background_free = is_background(request.class)
                && device.feedback.background_part().is_some()
                && device.background.undo(cost);
        }
        if is_background_free {
            self.background_pause = None;
        }
        let class = &mut self.classes[index];
        class.statistics.dispatched -= 1;
        let charged = &mut class.statistics.charged_tokens;
        *charged = charged.wrapping_sub(price);
        if class.cap.as_mut().is_some_and(|cap| cap.undo(request.bytes)) {
            class.pause = None;
        }
        class.note_starving(now);
        self.bring_back();
    }

    /// Gives back what the core has of the device's tokens: nothing goes until further notice.
    pub fn give_up_tokens(&mut self) {
        if let Some(device) = &mut self.device {
            Claimant::BOTH.into_iter().for_each(|claimant| device.tokens.give_up(claimant));
        }
    }

    /// A long request of a class goes on with another part.
    pub fn note_split(&mut self, class: IoClass) {
        self.classes[class as usize].statistics.split += 1;
    }

    /// Whoever asked for a request of a class took its result so long after its end.
    pub fn note_taken(&mut self, class: IoClass, nanoseconds: u64) {
        let statistics = &mut self.classes[class as usize].statistics;
        statistics.after_nanoseconds = statistics.after_nanoseconds.wrapping_add(nanoseconds);
    }

    /// Changes the usual shares of a class and its cap in bytes a second, for requests that go from
    /// now on; none leaves either as it is, and a cap of `Some(None)` takes the cap away. While its
    /// work is urgent it has so many times the shares.
    ///
    /// # Errors
    /// What is out of range; nothing has changed then.
    pub fn set_class(
        &mut self,
        class: IoClass,
        usual_shares: Option<u32>,
        bandwidth_max: Option<Option<u64>>,
        now: u64,
    ) -> Result<(), String> {
        check_io_class(class, usual_shares, bandwidth_max.flatten())?;
        let state = &mut self.classes[class as usize];
        if let Some(bandwidth_max) = bandwidth_max {
            state.statistics.bandwidth_max = bandwidth_max;
            state.cap = bandwidth_max.map(|rate| RateBucket::new(rate, CAP_BURST_NANOSECONDS, now));
            // What was owed under the old cap is forgotten.
            state.pause = None;
        }
        if let Some(usual) = usual_shares {
            state.statistics.usual_shares = usual;
            self.share_out(class);
        }
        self.bring_back();
        Ok(())
    }

    /// `claimant` finds its work of a queue so urgent, in thousandths of its usual shares; see
    /// [`Env::set_urgency`](crate::env::Env::set_urgency). The class of its disk requests gets
    /// shares by that, and the more urgent the most urgent work is, the less the background is held
    /// back where reads take too long. Returns how urgent the work of each queue is to be taken
    /// now, in the order of [`TaskQueue`], if that has changed.
    pub fn claim_urgency(
        &mut self,
        claimant: u16,
        queue: TaskQueue,
        urgency: u32,
    ) -> Option<[u32; TASK_QUEUES]> {
        if !self.urgencies.claim(claimant, queue, urgency) {
            return None;
        }
        self.apply_urgency();
        // Of all, because what one has more the others have less.
        for class in TaskQueue::ALL.into_iter().filter_map(TaskQueue::io_class) {
            self.share_out(class);
        }
        Some(TaskQueue::ALL.map(|queue| self.urgencies.of(queue)))
    }

    /// Holds the background back by as much as its work is urgent now. Where it may have all of the
    /// device it goes on at once, whatever it owes; a lesser rise ends no pause, or work whose
    /// urgency goes up and down would hardly be held back.
    fn apply_urgency(&mut self) {
        let Some(device) = &mut self.device else { return };
        device.feedback.set_urgency(self.urgencies.highest());
        let is_free = device.feedback.background_part().is_none();
        if is_free && self.background_pause.take().is_some() {
            self.bring_back();
        }
    }

    /// Gives a class its usual shares, times the urgency of its work.
    fn share_out(&mut self, class: IoClass) {
        let mut queues = TaskQueue::ALL.into_iter();
        let queue = queues.find(|queue| queue.io_class() == Some(class));
        let urgency = queue.map_or(URGENCY_USUAL, |queue| self.urgencies.of(queue));
        let statistics = &mut self.classes[class as usize].statistics;
        statistics.shares = urgent_shares(statistics.usual_shares, urgency);
        self.waiting.set_shares(class as usize, statistics.shares);
    }

    /// The number of requests that wait here.
    pub fn queued(&self) -> usize {
        self.waiting.len()
    }

    /// The number of requests that the device has.
    pub fn in_flight(&self) -> usize {
        self.in_flight.requests()
    }

    /// The bytes of the requests that the device has.
    pub fn bytes_in_flight(&self) -> u64 {
        self.in_flight.bytes()
    }

    /// How `class` stands at `now` nanoseconds.
    pub fn class_statistics(&self, class: IoClass, now: u64) -> IoClassStatistics {
        let class = &self.classes[class as usize];
        let starving = class.starved_since.map_or(0, |since| now.saturating_sub(since));
        let statistics = class.statistics;
        let starved_nanoseconds = statistics.starved_nanoseconds.wrapping_add(starving);
        IoClassStatistics { starved_nanoseconds, ..statistics }
    }

    /// What was found out of the device.
    pub fn flow(&self) -> IoFlow {
        self.device.as_ref().map(|device| device.feedback.flow()).unwrap_or_default()
    }

    /// Judges the device where a window has ended, and lets classes go on that are due.
    fn start_round(&mut self, now: u64) {
        if let Some(device) = &mut self.device {
            device.feedback.advance(now);
        }
        if !self.has_pauses {
            return;
        }
        self.background_pause.take_if(|pause| pause.is_over(now));
        for class in &mut self.classes {
            class.pause.take_if(|pause| pause.is_over(now));
        }
        self.bring_back();
    }

    /// When a class may go on that its cap, or the background's part, keeps out.
    fn pause_of(&self, class: IoClass) -> Option<u64> {
        let of_background = self.background_pause.filter(|_| is_background(class));
        let pauses = self.classes[class as usize].pause.into_iter().chain(of_background);
        pauses.map(Pause::end).max()
    }

    /// Lets all classes go on that nothing keeps out any more.
    fn bring_back(&mut self) {
        if !self.has_pauses {
            return;
        }
        self.has_pauses = false;
        for class in IoClass::ALL {
            if self.pause_of(class).is_some() {
                self.has_pauses = true;
            } else {
                self.waiting.bring_back(class as usize);
            }
        }
    }

    /// The earliest time at which a class with requests may go on.
    fn end_of_pauses(&self, now: u64) -> Option<u64> {
        if !self.has_pauses {
            return None;
        }
        let waits = |class: &IoClass| self.classes[*class as usize].statistics.queued > 0;
        let waiting = IoClass::ALL.into_iter().filter(waits);
        waiting.filter_map(|class| self.pause_of(class)).map(|end| end.max(now + 1)).min()
    }

    /// For whom the next request claims its tokens, which is of this class and has this price.
    fn claimant_of(&mut self, class: IoClass, price: u64) -> Claimant {
        let Some(device) = &mut self.device else { return Claimant::Awaited };
        if !is_background(class) {
            return Claimant::Awaited;
        }
        let may_go = |class: &ClassState| class.statistics.queued > 0 && class.pause.is_none();
        let mut awaited = IoClass::ALL.into_iter().filter(|class| !is_background(*class));
        if !awaited.any(|class| may_go(&self.classes[class as usize])) {
            device.tokens.give_up(Claimant::Awaited);
            return Claimant::Background;
        }
        // It is its turn by its shares, while others wait here: it claims as they do, or it would
        // hold them up for as long as other cores' reads go before it.
        let has_tokens = device.tokens.has(Claimant::Background, price);
        if has_tokens { Claimant::Background } else { Claimant::Awaited }
    }

    /// What a request of this cost is to pay now.
    fn price(&self, cost: u64, direction: IoDirection) -> u64 {
        let Some(device) = &self.device else { return 0 };
        let is_mixed = self.requests_in_flight[direction.other() as usize] > 0;
        let mixed = if is_mixed { device.mixed_scale } else { 1 << SCALE_BITS };
        let scale = u128::from(device.feedback.price_scale()) * u128::from(mixed);
        let price = (u128::from(cost) * scale) >> (2 * SCALE_BITS);
        u64::try_from(price).unwrap_or(u64::MAX).clamp(1, self.costs.limit())
    }

    /// Counts a request that goes, and pauses classes that have had their part.
    fn dispatch(&mut self, request: IoRequest, cost: u64, waited: u64, now: u64) {
        let waiting_cost = &mut self.waiting_cost[usual_claimant(request.class) as usize];
        *waiting_cost = waiting_cost.saturating_sub(cost);
        self.in_flight.enter(request.bytes);
        self.requests_in_flight[request.direction as usize] += 1;
        let index = request.class as usize;
        let class = &mut self.classes[index];
        class.bytes_in_flight += request.bytes;
        let statistics = &mut class.statistics;
        statistics.queued -= 1;
        statistics.in_flight += 1;
        statistics.dispatched += 1;
        statistics.queue_nanoseconds = statistics.queue_nanoseconds.wrapping_add(waited);
        class.note_starving(now);
        if let Some(wait) = class.cap.as_mut().and_then(|cap| cap.charge(request.bytes, now)) {
            class.pause = Some(Pause { since: now, nanoseconds: wait });
            self.waiting.take_out(index);
            self.has_pauses = true;
        }
        let Some(device) = &mut self.device else { return };
        if self.waiting_cost[Claimant::Background as usize] == 0 {
            device.tokens.give_up(Claimant::Background);
        }
        device.feedback.note_dispatched();
        let part = device.feedback.background_part().filter(|_| is_background(request.class));
        // Not only where a window ends: the part follows the urgency of the work too.
        if let Some(part) = part {
            device.background.set_rate(TOKENS_PER_MILLISECOND * part, now);
        }
        if part.is_some()
            && let Some(wait) = device.background.charge(cost, now)
        {
            self.background_pause = Some(Pause { since: now, nanoseconds: wait });
            BACKGROUND.into_iter().for_each(|class| self.waiting.take_out(class as usize));
            self.has_pauses = true;
        }
    }

    /// A request is no longer in flight.
    fn leave(&mut self, request: IoRequest) {
        let IoRequest { class, direction, bytes } = request;
        let state = &mut self.classes[class as usize];
        let requests = state.statistics.in_flight.checked_sub(1);
        let bytes_after = state.bytes_in_flight.checked_sub(bytes);
        let (Some(requests), Some(bytes_after)) = (requests, bytes_after) else {
            panic!("{class:?} completes {bytes} bytes that are not in flight");
        };
        assert!(requests > 0 || bytes_after == 0, "{class:?} completes too few bytes: {bytes}");
        state.statistics.in_flight = requests;
        state.bytes_in_flight = bytes_after;
        self.requests_in_flight[direction as usize] -= 1;
        self.in_flight.leave(bytes);
    }
}

impl ClassState {
    /// Looks whether something waits while nothing is under way, and for how long that was so.
    fn note_starving(&mut self, now: u64) {
        let is_starving = self.statistics.queued > 0 && self.statistics.in_flight == 0;
        match (is_starving, self.starved_since) {
            (true, None) => self.starved_since = Some(now),
            (false, Some(since)) => {
                let starved = &mut self.statistics.starved_nanoseconds;
                *starved = starved.wrapping_add(now.saturating_sub(since));
                self.starved_since = None;
            }
            _ => {}
        }
    }
}

fn is_background(class: IoClass) -> bool {
    BACKGROUND.contains(&class)
}

/// For whom requests of a class claim tokens while nothing else is to be regarded.
fn usual_claimant(class: IoClass) -> Claimant {
    if is_background(class) { Claimant::Background } else { Claimant::Awaited }
}
