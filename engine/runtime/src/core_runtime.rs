//! The seam of whoever starts cores: what a core is besides what runs on it.

use std::future::Future;

use crate::core_env::CoreEnv;
use crate::core_thread::Core;
use crate::network::Service;
use crate::ring_env::RingEnv;
use crate::ring_network::{ClientListener, RingNetwork};
use crate::uring::Uring;
use crate::wake::RemoteWaker;

/// A core of its own thread, on one of the runtimes.
pub trait CoreRuntime {
    /// Its instance of the seam.
    type Env: CoreEnv<Waker = RemoteWaker>;

    /// The seam, for the code that runs on the core.
    fn env(&self) -> Self::Env;

    /// Wakes the core from other threads.
    fn waker(&self) -> RemoteWaker;

    /// Accepts connections from `listener` while a service runs. Returns the index that
    /// [`Service::connected`] is given.
    fn listen(&mut self, listener: ClientListener) -> usize;

    /// Drives the core until `future` ends. Connections wait meanwhile.
    ///
    /// # Panics
    /// If a task panics, or the runtime fails.
    fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T;

    /// Runs `service` until `stop` returns true. `stop` is asked once per turn, and before the core
    /// sleeps: whoever changes its answer from another thread wakes the core afterwards.
    ///
    /// # Panics
    /// If a task or the service panics, or the runtime fails.
    fn run<S>(&mut self, service: &mut S, stop: &dyn Fn(&S) -> bool)
    where
        S: Service<<Self::Env as CoreEnv>::Network>;

    /// Drops all tasks and connections, and waits until the kernel is done with everything that was
    /// under way. Services get no more calls.
    fn shutdown(self);
}

impl CoreRuntime for Core<Uring> {
    type Env = RingEnv;

    fn env(&self) -> RingEnv {
        self.env()
    }

    fn waker(&self) -> RemoteWaker {
        self.waker()
    }

    fn listen(&mut self, listener: ClientListener) -> usize {
        self.network().listen(listener)
    }

    fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        self.block_on(future)
    }

    fn run<S: Service<RingNetwork>>(&mut self, service: &mut S, stop: &dyn Fn(&S) -> bool) {
        self.run(service, stop);
    }

    fn shutdown(self) {
        self.shutdown();
    }
}
