//! Where memcached's clients look for a key among several servers: a ring of points that MD5 gives
//! to each server, as libmemcached places them with weights. A key belongs to the server of the
//! first point that is not below its own hash.

use md5::{Digest, Md5};

use super::placement::{REPLICAS_MAX, Targets};

/// Points of a server whose weight is the mean of all.
const POINTS: f32 = 160.0;

/// Points that one hash gives.
const POINTS_OF_HASH: usize = 4;

/// The port that is left out of a server's name.
const DEFAULT_PORT: &str = ":11211";

/// The ring: points in their order, each with its node.
#[derive(Debug)]
pub(crate) struct Ring {
    points: Vec<(u32, u16)>,
}

impl Ring {
    /// The ring of these nodes, which have weights.
    pub(crate) fn new(nodes: &[(String, f64)]) -> Self {
        let all: f64 = nodes.iter().map(|(_, weight)| weight).sum();
        let mut points = Vec::new();
        for (node, (address, weight)) in nodes.iter().enumerate() {
            let name = address.strip_suffix(DEFAULT_PORT).unwrap_or(address);
            // In libmemcached's precision, because the floor of it counts.
            let share = *weight as f32 / all as f32;
            let hashes = share * POINTS / POINTS_OF_HASH as f32 * nodes.len() as f32 + 1e-10;
            for number in 0..hashes as usize {
                let words = md5(format!("{name}-{number}").as_bytes());
                points.extend(words.map(|point| (point, node as u16)));
            }
        }
        points.sort_unstable();
        Self { points }
    }

    /// The nodes of a record: that of its point, and the others that come next on the ring.
    pub(crate) fn of(&self, record: &[u8], replicas: usize) -> Targets {
        let [hash, ..] = md5(record);
        let first = self.points.partition_point(|(point, _)| *point < hash);
        let (before, behind) = self.points.split_at(first);
        let mut nodes = [0; REPLICAS_MAX];
        let mut count = 0;
        for (_, node) in behind.iter().chain(before) {
            if !nodes[..count].contains(node) {
                nodes[count] = *node;
                count += 1;
                if count == replicas {
                    break;
                }
            }
        }
        Targets::new(nodes, count.max(1))
    }
}

/// MD5's digest, as the four numbers that it is. It protects nothing here.
fn md5(bytes: &[u8]) -> [u32; 4] {
    let digest: [u8; 16] = Md5::digest(bytes).into();
    let (words, _) = digest.as_chunks::<4>();
    [0, 1, 2, 3].map(|at: usize| u32::from_le_bytes(words[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(weights: &[(&str, f64)]) -> Vec<(String, f64)> {
        weights.iter().map(|(address, weight)| ((*address).to_owned(), *weight)).collect()
    }

    /// Keys, servers and points that libmemcached's own tests name.
    #[test]
    fn keys_are_where_libmemcached_looks_for_them() {
        let weights = [600.0, 300.0, 200.0, 350.0, 1000.0, 800.0, 950.0, 100.0];
        let named = weights.iter().enumerate();
        let named = named.map(|(at, weight)| (format!("10.0.1.{}:11211", at + 1), *weight));
        let ring = Ring::new(&named.collect::<Vec<_>>());
        assert_eq!(md5(b"SVa_]_V41)")[0], 443_691_461);
        assert!(ring.points.contains(&(445_379_617, 6)));
        assert_eq!(ring.of(b"SVa_]_V41)", 1).at(0), 6);
        assert_eq!(ring.of(b"*/Z;?V(.\\8", 1).at(0), 0);
        assert_eq!(md5(b"VDEAAAAA")[0], 0xFFFC_D1B5);
        assert_eq!(ring.of(b"VDEAAAAA", 1).at(0), usize::from(ring.points[0].1), "round the end");
    }

    #[test]
    fn ports_belong_to_names_but_for_the_usual_one() {
        let weights =
            [("a.example:11211", 1.0), ("a.example:11212", 1.0), ("b.example:11211", 3.0)];
        let ring = Ring::new(&nodes(&weights));
        assert_eq!(ring.points.len(), 480);
        let keys = [&b"user:1"[..], b"user:2", b"session", b"", &[b'x'; 100], b"page"];
        assert_eq!(keys.map(|key| ring.of(key, 1).at(0)), [2, 2, 2, 1, 2, 2]);
        for key in keys {
            let mut all = ring.of(key, 3).as_slice().to_vec();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2]);
        }
    }
}
