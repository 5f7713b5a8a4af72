//! A node, and the connections to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use larder_protocol::native::HelloReply;

use super::client_core::WeakCore;
use super::keeper::Alarm;
use super::lane::{Failed, Lane, NoWay};
use super::locked;
use super::operation::{Operation, Route};
use super::settings::Settings;
use crate::clock::now;

/// Cores that get a connection of their own at most. A node with more is asked through its one
/// port.
const CORE_LANES_MAX: usize = 128;

/// A node, as the client sees it.
#[derive(Debug)]
pub(crate) struct Node {
    pub address: String,
    index: usize,
    core: std::sync::OnceLock<WeakCore>,
    layout: RwLock<Arc<Layout>>,
    hello: Mutex<Option<HelloReply>>,
    /// When the node was last heard to say it.
    heard_at: Mutex<Option<Instant>>,
    ask_at: Mutex<Instant>,
    /// The seed with which record ids are hashed.
    seed: AtomicU64,
}

/// How a node is laid out, and the lanes that follow from it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    shards: u16,
    cores: u16,
    seed: u64,
    core_ports: Vec<u16>,
    /// Lanes to the port that everybody knows.
    doors: Vec<Arc<Lane>>,
    /// By core, a lane to its own port; or none at all.
    by_core: Vec<Arc<Lane>>,
}

impl Layout {
    pub(crate) fn lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.doors.iter().chain(&self.by_core)
    }

    /// The lanes to the port that everybody knows.
    pub(crate) fn doors(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.doors.iter()
    }

    /// Whether the node still says the same.
    pub(crate) fn is_as(&self, hello: &HelloReply) -> bool {
        self.shards == hello.shards
            && self.cores == hello.cores
            && self.seed == hello.hash_seed
            && self.core_ports == hello.core_ports
    }

    /// The core that owns what is routed so.
    pub(crate) fn owner(&self, route: Route) -> Option<u16> {
        if route.seed != self.seed || self.shards == 0 || self.cores == 0 {
            return None;
        }
        let shard = (u128::from(self.shards) * u128::from(route.hash)) >> 64;
        Some((shard % u128::from(self.cores)) as u16)
    }

    /// The lane to take, if it can be another one than `avoid`.
    fn lane(&self, route: Option<Route>, avoid: Option<&Arc<Lane>>) -> Option<&Arc<Lane>> {
        let fits = |lane: &&Arc<Lane>| avoid.is_none_or(|avoid| !Arc::ptr_eq(lane, avoid));
        let is_up = |lane: &&Arc<Lane>| fits(lane) && lane.is_up();
        let owner = route.and_then(|route| self.owner(route));
        let own = owner.and_then(|owner| self.by_core.get(usize::from(owner)));
        let is_near = |lane: &&Arc<Lane>| is_up(lane) && lane.on_core() == owner;
        let spread = route.map_or(0, |route| route.hash as usize);
        let door = || self.doors.get(spread % self.doors.len().max(1));
        own.filter(is_up)
            .or_else(|| owner.and_then(|_| door().filter(is_near)))
            .or_else(|| owner.and_then(|_| self.doors.iter().find(is_near)))
            .or_else(|| door().filter(is_up))
            .or_else(|| self.lanes().find(is_up))
            .or_else(|| door().filter(fits))
    }
}

impl Node {
    pub(crate) fn new(address: &str, index: usize) -> Self {
        Self {
            address: address.to_owned(),
            index,
            core: std::sync::OnceLock::new(),
            layout: RwLock::default(),
            hello: Mutex::new(None),
            heard_at: Mutex::new(None),
            ask_at: Mutex::new(now()),
            seed: AtomicU64::new(0),
        }
    }

    /// Opens the lanes to the node's port.
    ///
    /// # Errors
    /// If there are no threads to be had.
    pub(crate) fn open(&self, settings: &Arc<Settings>, core: &WeakCore) -> std::io::Result<()> {
        self.core.get_or_init(|| core.clone());
        let mut doors = Vec::new();
        for _ in 0..settings.connections {
            let address = self.address.clone();
            doors.push(Lane::open(address, None, self.index, settings, core.clone())?);
        }
        *locked(&self.ask_at) = now() + settings.hello_every;
        self.replace(|layout| layout.doors.append(&mut doors));
        Ok(())
    }

    fn replace(&self, change: impl FnOnce(&mut Layout)) {
        let mut layout = self.layout.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut layout));
    }

    pub(crate) fn layout(&self) -> Arc<Layout> {
        Arc::clone(&self.layout.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The lane to take for what is routed so.
    pub(crate) fn lane(
        &self,
        route: Option<Route>,
        avoid: Option<&Arc<Lane>>,
    ) -> Option<Arc<Lane>> {
        let layout = self.layout.read().unwrap_or_else(PoisonError::into_inner);
        layout.lane(route, avoid).map(Arc::clone)
    }

    /// Hands a request that was just made to its lane; which one that is, if it should be sent
    /// without waiting for more.
    pub(crate) fn submit(&self, operation: &Arc<Operation>) -> Result<Option<Arc<Lane>>, NoWay> {
        // Threads that share a client are kept from counting who holds a lane.
        let layout = self.layout.read().unwrap_or_else(PoisonError::into_inner);
        let Some(lane) = layout.lane(operation.route, None) else { return Ok(None) };
        let is_urgent = lane.submit(operation, operation.started)?;
        Ok(is_urgent.then(|| Arc::clone(lane)))
    }

    /// What the node has said of itself last.
    pub(crate) fn hello(&self) -> Option<HelloReply> {
        locked(&self.hello).clone()
    }

    /// How long the node knows a change by its name; `None` if it has not said so.
    pub(crate) fn token_window(&self) -> Option<Duration> {
        let hello = locked(&self.hello);
        let seconds = hello.as_ref().map_or(0, |hello| hello.token_window_seconds);
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }

    /// The longest body that the node takes, in bytes; 0 if it has not said so.
    pub(crate) fn body_bytes_max(&self) -> u32 {
        locked(&self.hello).as_ref().map_or(0, |hello| hello.body_bytes_max)
    }

    /// Notes what the node says. Where its cores are others than before, so are the lanes; what was
    /// on those that go has failed.
    pub(crate) fn learn(
        &self,
        hello: HelloReply,
        settings: &Arc<Settings>,
        alarm: &Alarm,
    ) -> Vec<Failed> {
        let mut known = locked(&self.hello);
        let at = now();
        self.seed.store(hello.hash_seed, Ordering::Relaxed);
        let asked_again = at + settings.hello_every;
        *locked(&self.ask_at) = asked_again;
        alarm.set(asked_again);
        let mut failed = Vec::new();
        if !self.layout().is_as(&hello) {
            // Whom a lane to a core's port finds there is compared with this: so it is noted first.
            let mut gone = Vec::new();
            self.replace(|layout| {
                gone = std::mem::take(&mut layout.by_core);
                layout.shards = hello.shards;
                layout.cores = hello.cores;
                layout.seed = hello.hash_seed;
                layout.core_ports = hello.core_ports.clone();
            });
            failed = gone.iter().flat_map(|lane| lane.close()).collect();
            let by_core = self.core_lanes(&hello, settings);
            self.replace(|layout| layout.by_core = by_core);
        }
        *known = Some(hello);
        // Lanes to ports that the node has no more are closed by now, and none connects again.
        *locked(&self.heard_at) = Some(at);
        failed
    }

    /// A lane for each core, if the node offers it and there are threads for it.
    fn core_lanes(&self, hello: &HelloReply, settings: &Arc<Settings>) -> Vec<Arc<Lane>> {
        let ports = &hello.core_ports;
        let is_offered = !ports.is_empty() && ports.len() == usize::from(hello.cores);
        let (Some(core), Some((host, _))) = (self.core.get(), self.address.rsplit_once(':')) else {
            return Vec::new();
        };
        if !settings.core_connections || !is_offered || ports.len() > CORE_LANES_MAX {
            return Vec::new();
        }
        let open = |number: usize, port: u16| {
            let address = format!("{host}:{port}");
            Lane::open(address, Some(number as u16), self.index, settings, core.clone())
        };
        let mut lanes = Vec::new();
        for (number, port) in ports.iter().enumerate() {
            match open(number, *port) {
                Ok(lane) => lanes.push(lane),
                // Without threads for all of them the node's one port does.
                Err(_) => {
                    lanes.iter().for_each(|lane: &Arc<Lane>| drop(lane.close()));
                    return Vec::new();
                }
            }
        }
        lanes
    }

    /// The seed with which record ids are hashed.
    pub(crate) fn seed(&self) -> u64 {
        self.seed.load(Ordering::Relaxed)
    }

    /// Whether the node has said what it is since then.
    pub(crate) fn was_heard_since(&self, at: Instant) -> bool {
        locked(&self.heard_at).is_some_and(|heard| heard >= at)
    }

    /// Has the node asked soon what it is.
    pub(crate) fn ask_soon(&self) {
        *locked(&self.ask_at) = now();
    }

    /// Whether it is time to ask the node, and else when it will be.
    pub(crate) fn is_to_be_asked(&self, at: Instant, again: Instant) -> Result<(), Instant> {
        let mut ask_at = locked(&self.ask_at);
        if *ask_at > at {
            return Err(*ask_at);
        }
        *ask_at = again;
        Ok(())
    }
}
