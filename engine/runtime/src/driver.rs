//! What a core's loop works for: a service, or a future that somebody waits for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::core_env::CoreWaker;
use crate::executor::{Executor, thread_number};
use crate::network::Service;
use crate::operations::Port;
use crate::ring::{Completion, Ring};
use crate::ring_network::RingNetwork;
use crate::wake::RemoteWaker;

/// What the loop drives besides tasks, timers and the disk.
pub(crate) trait Driver<R: Ring> {
    fn is_finished(&self) -> bool;
    /// A turn begins, perhaps after a sleep.
    fn begin_turn(&mut self);
    fn complete(
        &mut self,
        network: &mut RingNetwork,
        port: &mut Port<R>,
        completion: Completion,
        now: u64,
    );
    /// Does what is due; returns whether there was anything.
    fn work(&mut self, network: &mut RingNetwork, now: u64) -> bool;
    fn flush(&mut self, network: &mut RingNetwork, port: &mut Port<R>, now: u64);
    fn publish(&mut self);
    /// Whether the network needs a flush.
    fn is_changed(&self, network: &RingNetwork) -> bool;
    /// When [`Driver::flush`] is due again, in nanoseconds.
    fn deadline(&self, network: &RingNetwork) -> Option<u64>;
    /// What took most of what was done since [`Driver::begin_turn`]; `None` if nobody is served who
    /// could have to wait for it.
    fn heaviest(&self) -> Option<String>;
}

/// A service and the question whether it is over.
pub(crate) struct Serving<'a, S> {
    pub(crate) service: &'a mut S,
    pub(crate) stop: &'a dyn Fn(&S) -> bool,
}

impl<R: Ring, S: Service<RingNetwork>> Driver<R> for Serving<'_, S> {
    fn is_finished(&self) -> bool {
        (self.stop)(self.service)
    }

    fn begin_turn(&mut self) {
        self.service.begin_turn();
    }

    #[inline]
    fn complete(
        &mut self,
        network: &mut RingNetwork,
        port: &mut Port<R>,
        completion: Completion,
        now: u64,
    ) {
        network.complete(port, self.service, completion, now);
    }

    fn work(&mut self, network: &mut RingNetwork, _now: u64) -> bool {
        self.service.turn(network)
    }

    fn flush(&mut self, network: &mut RingNetwork, port: &mut Port<R>, now: u64) {
        network.flush(port, self.service, now);
    }

    fn publish(&mut self) {
        self.service.publish();
    }

    fn is_changed(&self, network: &RingNetwork) -> bool {
        network.is_changed()
    }

    fn deadline(&self, network: &RingNetwork) -> Option<u64> {
        network.deadline()
    }

    fn heaviest(&self) -> Option<String> {
        Some(self.service.heaviest())
    }
}

/// The future that [`Core::block_on`] was given.
pub(crate) struct BlockingOn<'a, F: Future> {
    future: Pin<&'a mut F>,
    waker: Waker,
    bell: Arc<RootWaker>,
    executor: Arc<Executor>,
    output: Option<F::Output>,
}

impl<'a, F: Future> BlockingOn<'a, F> {
    /// A future to be polled on the calling thread, whose core `remote` wakes.
    pub(crate) fn new(
        future: Pin<&'a mut F>,
        executor: Arc<Executor>,
        remote: RemoteWaker,
    ) -> Self {
        let is_woken = AtomicBool::new(true);
        let bell = Arc::new(RootWaker { is_woken, owner: thread_number(), remote });
        Self { future, waker: Waker::from(Arc::clone(&bell)), bell, executor, output: None }
    }

    /// What the future returned; the loop ends only then.
    pub(crate) fn into_output(self) -> F::Output {
        self.output.expect("the loop ends with the output")
    }
}

impl<R: Ring, F: Future> Driver<R> for BlockingOn<'_, F> {
    fn is_finished(&self) -> bool {
        self.output.is_some()
    }

    fn begin_turn(&mut self) {}

    fn complete(
        &mut self,
        network: &mut RingNetwork,
        _port: &mut Port<R>,
        completion: Completion,
        _now: u64,
    ) {
        network.held.push_back(completion);
    }

    fn work(&mut self, _network: &mut RingNetwork, now: u64) -> bool {
        if self.output.is_some() || !self.bell.is_woken.swap(false, Ordering::AcqRel) {
            return false;
        }
        self.executor.start_quantum(now);
        let polled = self.future.as_mut().poll(&mut Context::from_waker(&self.waker));
        if let Poll::Ready(output) = polled {
            self.output = Some(output);
        }
        true
    }

    fn flush(&mut self, _network: &mut RingNetwork, _port: &mut Port<R>, _now: u64) {}

    fn publish(&mut self) {}

    fn is_changed(&self, _network: &RingNetwork) -> bool {
        false
    }

    fn deadline(&self, _network: &RingNetwork) -> Option<u64> {
        None
    }

    fn heaviest(&self) -> Option<String> {
        None
    }
}

struct RootWaker {
    is_woken: AtomicBool,
    owner: u64,
    remote: RemoteWaker,
}

impl Wake for RootWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        if thread_number() != self.owner {
            self.remote.wake();
        }
    }
}
