//! A call that is under way: a future for tasks, and something to wait for for threads.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use larder_protocol::native::NativeStatus;

use super::client_core::{ClientCore, FIRST_FAILURE};
use super::operation::{Operation, Outcome};
use super::spare;
use super::waiting::{send_and_read, stop_reading, wait};
use crate::connection::Arrived;
use crate::error::ClientError;

/// How a reply is read. What captures nothing takes no memory in a box.
type ReadReply<T> = Box<dyn FnOnce(Arrived) -> Result<T, ClientError> + Send>;

/// A call that is under way.
///
/// It is a future that only needs a waker, so any runtime will do; a thread waits for it with
/// [`Call::wait`]. Several calls that are made before the first has to be waited for travel
/// together. A call that is dropped is given up: it may be carried out or not.
#[must_use = "a call may stay unsent until it is waited for or awaited"]
pub struct Call<T> {
    state: State,
    read: Option<ReadReply<T>>,
    /// Whether `read` has something in it that is the program's, and may take any time.
    is_mapped: bool,
}

/// What follows from the outcomes of several nodes.
pub(super) enum Agreed {
    /// One outcome.
    Outcome(Outcome),
    /// They are to be asked this as well.
    Ask(Vec<Arc<Operation>>, Agreement),
}

/// Says what follows from the outcomes of several nodes.
pub(super) type Agreement = Box<dyn FnOnce(Vec<Outcome>) -> Agreed + Send>;

enum State {
    /// It could not be made.
    Failed(Option<ClientError>),
    /// It is under way on one node.
    One(Arc<ClientCore>, Arc<Operation>),
    /// It is under way on several nodes, all of which have to answer.
    All(Arc<ClientCore>, AskedOfAll, Option<Agreement>),
    Over,
}

/// What several nodes are asked, and those of their answers that have come.
type AskedOfAll = Vec<(Arc<Operation>, Option<Outcome>)>;

impl<T> Call<T> {
    pub(crate) fn failed(error: ClientError) -> Self {
        Self { state: State::Failed(Some(error)), read: None, is_mapped: false }
    }

    /// Of one request, or of a write to several nodes that all have to do it.
    pub(crate) fn new(
        core: &Arc<ClientCore>,
        operations: impl IntoIterator<Item = Arc<Operation>>,
        read: impl FnOnce(Arrived) -> Result<T, ClientError> + Send + 'static,
    ) -> Self {
        Self::of_all(core, operations, Box::new(agreed), read)
    }

    /// Of one request, or of several of whose outcomes `agreement` says what follows.
    pub(super) fn of_all(
        core: &Arc<ClientCore>,
        operations: impl IntoIterator<Item = Arc<Operation>>,
        agreement: Agreement,
        read: impl FnOnce(Arrived) -> Result<T, ClientError> + Send + 'static,
    ) -> Self {
        let core = Arc::clone(core);
        let mut operations = operations.into_iter();
        let state = match (operations.next(), operations.next()) {
            (Some(operation), None) => State::One(core, operation),
            (first, second) => {
                let all = first.into_iter().chain(second).chain(operations);
                let asked = all.map(|operation| (operation, None)).collect();
                State::All(core, asked, Some(agreement))
            }
        };
        Self { state, read: Some(Box::new(read)), is_mapped: false }
    }

    /// The same call with another answer.
    pub fn map<U>(mut self, change: impl FnOnce(T) -> U + Send + 'static) -> Call<U>
    where
        T: 'static,
    {
        let state = std::mem::replace(&mut self.state, State::Over);
        let read = self
            .read
            .take()
            .map(|read| Box::new(move |arrived| read(arrived).map(change)) as ReadReply<U>);
        Call { state, read, is_mapped: true }
    }

    /// Waits for the answer, at most until the call's deadline.
    ///
    /// # Errors
    /// Any.
    pub fn wait(self) -> Result<T, ClientError> {
        wait(self)
    }

    fn poll_outcome(&mut self, waker: &Waker) -> Poll<Outcome> {
        match &mut self.state {
            State::Failed(error) => Poll::Ready(Err(error.take().unwrap_or_else(given))),
            State::One(core, operation) => poll_one(core, operation, waker),
            State::All(core, asked, agreement) => poll_all(core, asked, agreement, waker),
            State::Over => Poll::Ready(Err(given())),
        }
    }
}

/// The outcome of what several nodes are asked, in as many rounds as it takes.
fn poll_all(
    core: &ClientCore,
    asked: &mut AskedOfAll,
    agreement: &mut Option<Agreement>,
    waker: &Waker,
) -> Poll<Outcome> {
    loop {
        for (operation, outcome) in asked.iter_mut() {
            if outcome.is_none() {
                match poll_one(core, operation, waker) {
                    Poll::Ready(ended) => *outcome = Some(ended),
                    Poll::Pending => return Poll::Pending,
                }
            }
        }
        let outcomes = asked.drain(..).filter_map(|(_, outcome)| outcome).collect();
        let Some(agree) = agreement.take() else { return Poll::Ready(Err(given())) };
        match agree(outcomes) {
            Agreed::Outcome(outcome) => return Poll::Ready(outcome),
            Agreed::Ask(more, next) => {
                asked.extend(more.into_iter().map(|operation| (operation, None)));
                *agreement = Some(next);
            }
        }
    }
}

/// The outcome of a request. What was begun is sent where one has to be waited for: who takes
/// answers that are there and asks for more goes on gathering. A thread that waits reads as well.
fn poll_one(core: &ClientCore, operation: &Operation, waker: &Waker) -> Poll<Outcome> {
    if let Some(outcome) = operation.take() {
        return Poll::Ready(outcome);
    }
    send_and_read(core, operation, waker);
    operation.poll(waker)
}

/// The error of a call that has given its answer already.
fn given() -> ClientError {
    ClientError::Usage("a call gives its answer once: it must not be polled again".to_owned())
}

/// What a write to several nodes ends with: what the first of them says, if all have done it.
fn agreed(outcomes: Vec<Outcome>) -> Agreed {
    Agreed::Outcome(done_by_all(outcomes))
}

fn done_by_all(outcomes: Vec<Outcome>) -> Outcome {
    let of = outcomes.len();
    let is_done = |outcome: &Outcome| {
        let status = outcome.as_ref().ok().and_then(|arrived| arrived.status);
        // A replica that lacks a chunk has not stored the value.
        status.is_some_and(|status| {
            (status as u8) < FIRST_FAILURE && status != NativeStatus::MissingChunk
        })
    };
    let done = outcomes.iter().filter(|outcome| is_done(outcome)).count();
    let mut outcomes = outcomes.into_iter();
    if done == of {
        return outcomes.next().unwrap_or_else(|| Err(given()));
    }
    let failed = outcomes.find(|outcome| !is_done(outcome));
    let error = failed.and_then(|outcome| outcome.and_then(|arrived| arrived.ok(&[])).err());
    let error = Box::new(error.unwrap_or_else(given));
    Err(ClientError::Replicas { done, of, error })
}

// The answer is in no place that is pinned.
impl<T> Unpin for Call<T> {}

impl<T> Future for Call<T> {
    type Output = Result<T, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = match self.poll_outcome(context.waker()) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => return Poll::Pending,
        };
        if let State::One(_, over) = std::mem::replace(&mut self.state, State::Over) {
            spare::keep(over);
        }
        if self.is_mapped {
            stop_reading();
        }
        let read = self.read.take();
        Poll::Ready(outcome.and_then(|arrived| match read {
            Some(read) => read(arrived),
            None => Err(given()),
        }))
    }
}

impl<T> Drop for Call<T> {
    fn drop(&mut self) {
        match &self.state {
            State::One(_, operation) => operation.abandon(),
            State::All(_, operations, _) => {
                operations.iter().for_each(|(operation, _)| operation.abandon());
            }
            State::Failed(_) | State::Over => {}
        }
    }
}

impl<T> std::fmt::Debug for Call<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            State::Failed(_) => "failed",
            State::One(..) | State::All(..) => "under way",
            State::Over => "over",
        };
        formatter.debug_tuple("Call").field(&state).finish()
    }
}

/// Several calls, which travel together. Each ends for itself, in the order in which they were
/// made.
#[must_use = "calls may stay unsent until they are waited for or awaited"]
pub struct Calls<T> {
    calls: Vec<Call<T>>,
    ended: Vec<Result<T, ClientError>>,
}

impl<T> Calls<T> {
    /// Waits for all answers, at most until the last deadline.
    pub fn wait(self) -> Vec<Result<T, ClientError>> {
        wait(self)
    }
}

impl<T> FromIterator<Call<T>> for Calls<T> {
    fn from_iter<I: IntoIterator<Item = Call<T>>>(calls: I) -> Self {
        let calls: Vec<_> = calls.into_iter().collect();
        let ended = Vec::with_capacity(calls.len());
        Self { calls, ended }
    }
}

// Neither calls nor results are ever pinned in place.
impl<T> Unpin for Calls<T> {}

impl<T> Future for Calls<T> {
    type Output = Vec<Result<T, ClientError>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { calls, ended } = &mut *self;
        for call in &mut calls[ended.len()..] {
            match Pin::new(call).poll(context) {
                Poll::Ready(result) => ended.push(result),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(std::mem::take(ended))
    }
}

impl<T> std::fmt::Debug for Calls<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (calls, ended) = (self.calls.len(), self.ended.len());
        formatter.debug_struct("Calls").field("calls", &calls).field("ended", &ended).finish()
    }
}
