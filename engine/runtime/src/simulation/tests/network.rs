//! The simulated network by itself: an echo, and clients of all kinds.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::super::{
    SimClient, SimCore, SimNetwork, SimNetworkOptions, Simulation, SimulationOptions,
};
use crate::core_env::CoreWaker;
use crate::env::{Env, TaskQueue};
use crate::network::{ConnectionId, Network, Service};
use crate::random::Random;

const OPTIONS: SimNetworkOptions = SimNetworkOptions {
    output_high_water: 200,
    receive_bytes_max: 50,
    send_bytes_max: 70,
    events_per_turn: 8,
};

/// Sends back what it gets, every other piece as a value of its own.
#[derive(Default)]
struct Echo {
    received: BTreeMap<u64, Vec<u8>>,
    pieces: usize,
    connected: usize,
    drained: usize,
    closed: usize,
    turns: usize,
}

impl Service<SimNetwork> for Echo {
    fn connected(
        &mut self,
        _: &mut SimNetwork,
        _: ConnectionId,
        listener: usize,
        _: Option<SocketAddr>,
    ) -> bool {
        self.connected += 1;
        listener == 0
    }

    fn received(&mut self, network: &mut SimNetwork, connection: ConnectionId, bytes: &[u8]) {
        self.received.entry(connection.into()).or_default().extend_from_slice(bytes);
        self.pieces += 1;
        let output = network.output(connection).expect("it is open");
        if self.pieces.is_multiple_of(2) {
            let at = output.bytes().len();
            output.link_at(at, bytes.to_vec());
        } else {
            output.bytes().extend_from_slice(bytes);
        }
        if network.output_pending(connection) > OPTIONS.output_high_water {
            network.pause(connection);
            // What is sent before the turn ends may leave too little to be told of.
            network.expect_drained(connection);
        }
    }

    fn ended(&mut self, network: &mut SimNetwork, connection: ConnectionId) {
        network.close_after_output(connection);
    }

    fn drained(&mut self, network: &mut SimNetwork, connection: ConnectionId) {
        self.drained += 1;
        network.resume(connection);
    }

    fn closed(&mut self, _: ConnectionId) {
        self.closed += 1;
    }

    fn turn(&mut self, _: &mut SimNetwork) -> bool {
        self.turns += 1;
        false
    }

    fn publish(&mut self) {}
}

fn core(seed: u64) -> (Simulation, SimCore) {
    let simulation = Simulation::new(SimulationOptions::new(seed));
    let core = SimCore::new(simulation.env(), seed, 0, OPTIONS);
    (simulation, core)
}

/// Lets the core take turns until there is no reason for one.
fn settle(core: &mut SimCore, service: &mut Echo) {
    while core.turn(service) {}
}

/// What a client gets back that sends `bytes`, ends its side and reads at random.
fn echoed(seed: u64, bytes: &[u8]) -> (Vec<u8>, Echo) {
    let (_simulation, mut core) = core(seed);
    let (mut service, mut random) = (Echo::default(), Random::new(seed));
    let client = core.connect(0, 100);
    let (mut sent, mut read) = (0, Vec::new());
    for round in 0.. {
        assert!(round < 100_000, "seed {seed} is stuck");
        if client.is_over() {
            break;
        }
        if sent < bytes.len() {
            let end = sent + random.count(1..=bytes.len() - sent);
            client.send(&bytes[sent..end]);
            sent = end;
            if sent == bytes.len() {
                client.finish();
            }
        }
        core.turn(&mut service);
        if random.percent(30) {
            read.extend(client.read(random.count(1..=80)));
        }
    }
    assert!(!client.was_reset(), "it was ended in good order");
    settle(&mut core, &mut service);
    assert_eq!((core.network().connections(), core.network().output_memory()), (0, 0));
    (read, service)
}

#[test]
fn a_client_that_ends_its_side_gets_every_byte_whatever_the_cuts() {
    let bytes = Random::new(1).bytes(3000);
    let mut pieces = Vec::new();
    for seed in 0..50 {
        let (read, service) = echoed(seed, &bytes);
        assert_eq!(read, bytes, "seed {seed}");
        assert_eq!(service.received.values().next(), Some(&bytes), "seed {seed}");
        assert_eq!((service.connected, service.closed), (1, 1));
        assert!(service.drained > 0, "the reader is slow");
        let (again, other) = echoed(seed, &bytes);
        assert_eq!((again, other.pieces, other.turns), (read, service.pieces, service.turns));
        pieces.push(service.pieces);
    }
    pieces.dedup();
    assert!(pieces.len() > 10, "seeds cut differently");
}

#[test]
fn a_reset_is_told_once_and_gives_everything_back() {
    let (_simulation, mut core) = core(3);
    let mut service = Echo::default();
    let clients: Vec<SimClient> = (0..5).map(|_| core.connect(0, 10)).collect();
    clients.iter().for_each(|client| client.send(&[7; 500]));
    for _ in 0..20 {
        core.turn(&mut service);
    }
    assert!(core.network().output_memory() > 0, "nobody reads");
    clients.iter().for_each(SimClient::reset);
    settle(&mut core, &mut service);
    assert_eq!((service.connected, service.closed), (5, 5));
    assert_eq!((core.network().connections(), core.network().output_memory()), (0, 0));
}

#[test]
fn who_is_turned_away_learns_of_it() {
    let (mut simulation, mut core) = core(4);
    let mut service = Echo::default();
    let client = core.connect(1, 10);
    settle(&mut core, &mut service);
    assert!(client.is_over() && service.closed == 0, "the client may read first");
    simulation.advance(2_000_000_000).expect("time passes");
    settle(&mut core, &mut service);
    assert_eq!(service.closed, 1);
}

#[test]
fn a_core_takes_a_turn_for_a_reason_only() {
    let (mut simulation, mut core) = core(5);
    let mut service = Echo::default();
    settle(&mut core, &mut service);
    assert!(!core.turn(&mut service));
    core.waker().wake();
    assert!(core.turn(&mut service) && !core.turn(&mut service), "another core has woken it");
    core.env().spawn(TaskQueue::Foreground, core.env().sleep(1000));
    simulation.advance(10_000).expect("the task ends");
    assert!(core.turn(&mut service) && !core.turn(&mut service), "a task has run");
}
