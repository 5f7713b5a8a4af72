//! What a core's turns are for: a service, or a future that somebody waits for.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::network::GlommioNetwork;
use super::wakers::OnBell;
use crate::network::Service;

/// What a turn drives, in the order of its calls.
pub(super) trait Driver {
    fn begin_turn(&mut self);
    fn happen(&mut self, network: &mut GlommioNetwork, now: u64, context: &mut Context<'_>);
    /// Does what is due; returns whether there was anything.
    fn work(&mut self, network: &mut GlommioNetwork, context: &mut Context<'_>) -> bool;
    fn flush(&mut self, network: &mut GlommioNetwork, now: u64);
    fn publish(&mut self);
    fn is_finished(&self) -> bool;
    /// Whether another turn would find something to do.
    fn is_changed(&self, network: &GlommioNetwork) -> bool;
    /// When the next turn is due at the latest, in nanoseconds.
    fn deadline(&self, network: &GlommioNetwork) -> Option<u64>;
}

/// A service and the question whether it is over.
pub(super) struct Serving<'a, S> {
    pub(super) service: &'a mut S,
    pub(super) stop: &'a dyn Fn(&S) -> bool,
}

impl<S: Service<GlommioNetwork>> Driver for Serving<'_, S> {
    fn begin_turn(&mut self) {
        self.service.begin_turn();
    }

    fn happen(&mut self, network: &mut GlommioNetwork, now: u64, context: &mut Context<'_>) {
        network.happen(self.service, now, context);
    }

    fn work(&mut self, network: &mut GlommioNetwork, _context: &mut Context<'_>) -> bool {
        self.service.turn(network)
    }

    fn flush(&mut self, network: &mut GlommioNetwork, now: u64) {
        network.flush(self.service, now);
    }

    fn publish(&mut self) {
        self.service.publish();
    }

    fn is_finished(&self) -> bool {
        (self.stop)(self.service)
    }

    fn is_changed(&self, network: &GlommioNetwork) -> bool {
        network.is_changed()
    }

    fn deadline(&self, network: &GlommioNetwork) -> Option<u64> {
        network.deadline()
    }
}

/// The future that a core blocks on. Connections wait meanwhile.
pub(super) struct BlockingOn<F: Future> {
    future: OnBell<F>,
    output: Option<F::Output>,
}

impl<F: Future> BlockingOn<F> {
    pub(super) fn new(future: Pin<Box<F>>) -> Self {
        Self { future: OnBell::new(future), output: None }
    }

    /// What the future returned; the turns end only then.
    pub(super) fn into_output(self) -> F::Output {
        self.output.expect("the turns end with the output")
    }
}

impl<F: Future> Driver for BlockingOn<F> {
    fn begin_turn(&mut self) {}

    fn happen(&mut self, _network: &mut GlommioNetwork, _now: u64, _context: &mut Context<'_>) {}

    fn work(&mut self, _network: &mut GlommioNetwork, context: &mut Context<'_>) -> bool {
        if self.output.is_none()
            && let Poll::Ready(output) = Pin::new(&mut self.future).poll(context)
        {
            self.output = Some(output);
        }
        false
    }

    fn flush(&mut self, _network: &mut GlommioNetwork, _now: u64) {}

    fn publish(&mut self) {}

    fn is_finished(&self) -> bool {
        self.output.is_some()
    }

    fn is_changed(&self, _network: &GlommioNetwork) -> bool {
        false
    }

    fn deadline(&self, _network: &GlommioNetwork) -> Option<u64> {
        None
    }
}
