//! Which nodes a record is on.
//!
//! By rendezvous hashing: each node has a score for each record, made of the hash of both and of
//! the node's weight, and the record is on the nodes with the highest. Where a node comes or goes,
//! only its own records move.

use xxhash_rust::xxh3::xxh3_64;

use super::budget::mix;
use super::ketama::Ring;

/// Nodes that a record is on at most.
pub(crate) const REPLICAS_MAX: usize = 8;

/// The nodes of one record, the first one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Targets {
    nodes: [u16; REPLICAS_MAX],
    count: u8,
}

impl Targets {
    /// One node.
    pub(crate) fn one(node: usize) -> Self {
        let mut nodes = [0; REPLICAS_MAX];
        nodes[0] = node as u16;
        Self { nodes, count: 1 }
    }

    /// The first `count` of these.
    pub(crate) fn new(nodes: [u16; REPLICAS_MAX], count: usize) -> Self {
        Self { nodes, count: count as u8 }
    }

    pub(crate) fn as_slice(&self) -> &[u16] {
        &self.nodes[..usize::from(self.count)]
    }

    /// The node that is asked by the try with this number; they take turns.
    pub(crate) fn at(&self, attempt: u32) -> usize {
        usize::from(self.nodes[attempt as usize % usize::from(self.count)])
    }
}

/// How the nodes of a record are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// By scores.
    Rendezvous,
    /// On a ring, as memcached's clients do.
    Ketama,
}

/// Where records are.
#[derive(Debug)]
pub(crate) struct Placement {
    places: Places,
    replicas: usize,
}

#[derive(Debug)]
enum Places {
    One,
    /// Of each node the hash of its name, and its weight.
    Rendezvous(Vec<(u64, f64)>),
    Ketama(Ring),
}

impl Placement {
    /// Records are on `replicas` of these nodes, which have a name and a weight above 0 each.
    pub(crate) fn new(nodes: &[(String, f64)], replicas: usize, rule: Rule) -> Self {
        let replicas = replicas.min(nodes.len()).clamp(1, REPLICAS_MAX);
        let named = nodes.iter().map(|(name, weight)| (xxh3_64(name.as_bytes()), *weight));
        let places = match rule {
            _ if nodes.len() == 1 => Places::One,
            Rule::Rendezvous => Places::Rendezvous(named.collect()),
            Rule::Ketama => Places::Ketama(Ring::new(nodes)),
        };
        Self { places, replicas }
    }

    /// How many nodes a record is on.
    pub(crate) fn replicas(&self) -> usize {
        self.replicas
    }

    /// The nodes of a record.
    pub(crate) fn of(&self, record: &[u8]) -> Targets {
        match &self.places {
            Places::One => Targets::one(0),
            Places::Rendezvous(nodes) => best(nodes, xxh3_64(record), self.replicas),
            Places::Ketama(ring) => ring.of(record, self.replicas),
        }
    }
}

/// The nodes with the highest scores.
fn best(nodes: &[(u64, f64)], hash: u64, replicas: usize) -> Targets {
    let mut best = [(f64::NEG_INFINITY, 0u16); REPLICAS_MAX];
    let mut count = 0;
    for (node, (name, weight)) in nodes.iter().enumerate() {
        let score = score(hash, *name, *weight);
        let at = best[..count].iter().take_while(|(other, _)| *other >= score).count();
        if at < replicas {
            count = (count + 1).min(replicas);
            best[at..count].rotate_right(1);
            best[at] = (score, node as u16);
        }
    }
    Targets::new(best.map(|(_, node)| node), count)
}

/// With scores of -weight / ln(chance) a node has the highest of all as often as its share of the
/// weights says.
fn score(record: u64, name: u64, weight: f64) -> f64 {
    // 53 bits, and a half so that neither 0 nor 1 comes out.
    let chance = ((mix(record ^ name) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -weight / chance.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(weights: &[f64], replicas: usize) -> Placement {
        let named = |(number, weight): (usize, &f64)| (format!("node{number}:9411"), *weight);
        Placement::new(
            &weights.iter().enumerate().map(named).collect::<Vec<_>>(),
            replicas,
            Rule::Rendezvous,
        )
    }

    fn firsts(placement: &Placement, nodes: usize) -> Vec<usize> {
        let mut counts = vec![0; nodes];
        for number in 0..30_000 {
            counts[placement.of(format!("record{number}").as_bytes()).at(0)] += 1;
        }
        counts
    }

    #[test]
    fn records_are_spread_by_weight() {
        let counts = firsts(&placement(&[1.0, 2.0, 3.0], 1), 3);
        for (count, share) in counts.iter().zip([5_000, 10_000, 15_000]) {
            assert!(count.abs_diff(share) < share / 20, "{counts:?}");
        }
    }

    #[test]
    fn a_node_that_goes_moves_its_own_records_alone() {
        let (four, three) = (placement(&[1.0; 4], 2), placement(&[1.0; 3], 2));
        for number in 0..5_000 {
            let record = format!("record{number}");
            let (before, after) = (four.of(record.as_bytes()), three.of(record.as_bytes()));
            let stay: Vec<u16> =
                before.as_slice().iter().copied().filter(|node| *node != 3).collect();
            assert_eq!(after.as_slice()[..stay.len()], stay, "{record}");
        }
    }

    #[test]
    fn replicas_are_different_nodes_and_take_turns() {
        let placement = placement(&[1.0, 0.5, 2.0, 1.0, 1.0], 3);
        for number in 0..1_000 {
            let targets = placement.of(format!("record{number}").as_bytes());
            let mut nodes = targets.as_slice().to_vec();
            assert_eq!(targets.at(4), usize::from(nodes[1]));
            nodes.sort_unstable();
            nodes.dedup();
            assert_eq!(nodes.len(), 3);
        }
        let few = two_of_five();
        assert_eq!((few.replicas(), few.of(b"r").as_slice().len()), (2, 2));
    }

    fn two_of_five() -> Placement {
        placement(&[1.0; 2], 5)
    }

    /// Other versions of the client, and clients in other languages, have to find what this one
    /// has stored.
    #[test]
    fn places_never_change() {
        let placement = placement(&[1.0, 2.0, 1.0, 0.25], 3);
        let places = ["user:1", "user:2", "a", "", "session:9f2c"]
            .map(|record| placement.of(record.as_bytes()).as_slice().to_vec());
        assert_eq!(places, GOLDEN);
    }

    const GOLDEN: [[u16; 3]; 5] = [[2, 1, 0], [1, 2, 0], [1, 2, 0], [1, 2, 0], [1, 0, 2]];
}
