//! A whole node in one thread, decided by a seed: the service of one or two cores with their shards
//! on a simulated disk, and clients of both protocols on a simulated network.
//!
//! What must hold of every run: each client is answered exactly as a model of it says, whatever the
//! cuts of its bytes and however slowly it reads; nothing of one client's reaches another; when all
//! have gone, nobody holds anything; and the same seed gives the same run.
//!
//! LARDER_SIMULATION_SEED=n runs that seed alone, LARDER_SIMULATION_SEEDS=n as many as asked for,
//! LARDER_SIMULATION_FIRST=n begins at that seed.

mod asking;
mod canary;
mod client;
mod crossing;
mod memcached_talk;
mod native_talk;
mod node;
mod watching;

use larder_runtime::random::Random;

use client::{Client, Habits};
use node::{Node, Size};

/// Clients of one run at most.
const CLIENTS_MAX: usize = 8;

/// What a run was, as far as anybody outside can see.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// By client, what it was sent, and whether it has seen the end of its work.
    clients: Vec<(Vec<u8>, bool)>,
    /// Moments of the simulated world: tasks' turns and disk operations.
    trace: Vec<larder_runtime::simulation::TraceEntry>,
}

fn run(seed: u64, records_trace: bool) -> Outcome {
    let mut random = Random::stream(seed, 100);
    let size = Size::random(&mut random);
    let mut node = Node::start(seed, size, records_trace);
    let count = random.count(1..=CLIENTS_MAX);
    let begin = |number| {
        let mut random = Random::stream(seed, 1000 + number as u64);
        let habits = Habits::random(number, &mut random);
        Client::new(number, habits, random)
    };
    let mut clients: Vec<Client> = (0..count).map(begin).collect();
    node.serve(&mut clients, &mut random);
    node.assert_nothing_is_held();
    let clients = clients.into_iter().map(Client::into_outcome).collect();
    Outcome { clients, trace: node.trace() }
}

/// Runs `test` for the seeds that the environment asks for, or `count` from `first` on.
fn for_each_seed(name: &str, first: u64, count: u64, test: impl Fn(u64)) {
    larder_runtime::simulation::for_each_seed(("larder", name), first, count, test);
}

#[test]
fn clients_of_a_simulated_node_get_their_own_answers() {
    let name = "clients_of_a_simulated_node_get_their_own_answers";
    for_each_seed(name, 1, 200, |seed| drop(run(seed, false)));
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    let name = "a_seed_gives_the_same_run_every_time";
    for_each_seed(name, 5000, 4, |seed| {
        let (first, second) = (run(seed, true), run(seed, true));
        assert!(!first.trace.is_empty(), "a node has tasks");
        assert!(first.clients == second.clients, "clients were sent something else");
        let differs = first.trace.iter().zip(&second.trace).position(|(one, other)| one != other);
        assert_eq!(differs, None, "of {} and {}", first.trace.len(), second.trace.len());
        assert_eq!(first.trace.len(), second.trace.len());
    });
}

#[test]
fn seeds_differ_and_most_clients_end_their_work() {
    let outcomes: Vec<Outcome> = (6000..6020).map(|seed| run(seed, false)).collect();
    assert!(outcomes.windows(2).all(|pair| pair[0].clients != pair[1].clients));
    let clients = outcomes.iter().flat_map(|outcome| &outcome.clients);
    let (whole, all) = clients.fold((0, 0), |(whole, all), (bytes, is_whole)| {
        (whole + usize::from(*is_whole && !bytes.is_empty()), all + 1)
    });
    assert!(whole * 2 > all, "{whole} of {all} clients saw the end of their work");
}
