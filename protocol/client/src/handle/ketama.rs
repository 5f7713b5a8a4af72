//! Where memcached's clients look for a key among several servers: a ring of points that MD5 gives
//! to each server, as libmemcached places them with weights. A key belongs to the server of the
//! first point that is not below its own hash.

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
    let mut state = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476];
    let (blocks, rest) = bytes.as_chunks::<64>();
    let mut last = [0; 128];
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()] = 0x80;
    let end = if rest.len() < 56 { 64 } else { 128 };
    let bits = (bytes.len() as u64).wrapping_mul(8);
    last[end - 8..end].copy_from_slice(&bits.to_le_bytes());
    let (last, _) = last[..end].as_chunks::<64>();
    for block in blocks.iter().chain(last) {
        state = digest(state, block);
    }
    state
}

/// The state after one block more.
fn digest(state: [u32; 4], block: &[u8; 64]) -> [u32; 4] {
    let (words, _) = block.as_chunks::<4>();
    let [mut a, mut b, mut c, mut d] = state;
    for step in 0..64 {
        let (mixed, word) = match step / 16 {
            0 => ((b & c) | (!b & d), step),
            1 => ((d & b) | (!d & c), 5 * step + 1),
            2 => (b ^ c ^ d, 3 * step + 5),
            _ => (c ^ (b | !d), 7 * step),
        };
        let word = u32::from_le_bytes(words[word % 16]);
        let sum = a.wrapping_add(mixed).wrapping_add(SINES[step]).wrapping_add(word);
        let turned = sum.rotate_left(TURNS[step / 16][step % 4]);
        (a, d, c, b) = (d, c, b, b.wrapping_add(turned));
    }
    let [first, second, third, fourth] = state;
    [first.wrapping_add(a), second.wrapping_add(b), third.wrapping_add(c), fourth.wrapping_add(d)]
}

/// By how many bits each step of a round turns.
const TURNS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];

/// The sines of 1 to 64 radians, without their signs, times 2^32.
#[rustfmt::skip]
const SINES: [u32; 64] = [
    0xD76A_A478, 0xE8C7_B756, 0x2420_70DB, 0xC1BD_CEEE,
    0xF57C_0FAF, 0x4787_C62A, 0xA830_4613, 0xFD46_9501,
    0x6980_98D8, 0x8B44_F7AF, 0xFFFF_5BB1, 0x895C_D7BE,
    0x6B90_1122, 0xFD98_7193, 0xA679_438E, 0x49B4_0821,
    0xF61E_2562, 0xC040_B340, 0x265E_5A51, 0xE9B6_C7AA,
    0xD62F_105D, 0x0244_1453, 0xD8A1_E681, 0xE7D3_FBC8,
    0x21E1_CDE6, 0xC337_07D6, 0xF4D5_0D87, 0x455A_14ED,
    0xA9E3_E905, 0xFCEF_A3F8, 0x676F_02D9, 0x8D2A_4C8A,
    0xFFFA_3942, 0x8771_F681, 0x6D9D_6122, 0xFDE5_380C,
    0xA4BE_EA44, 0x4BDE_CFA9, 0xF6BB_4B60, 0xBEBF_BC70,
    0x289B_7EC6, 0xEAA1_27FA, 0xD4EF_3085, 0x0488_1D05,
    0xD9D4_D039, 0xE6DB_99E5, 0x1FA2_7CF8, 0xC4AC_5665,
    0xF429_2244, 0x432A_FF97, 0xAB94_23A7, 0xFC93_A039,
    0x655B_59C3, 0x8F0C_CC92, 0xFFEF_F47D, 0x8584_5DD1,
    0x6FA8_7E4F, 0xFE2C_E6E0, 0xA301_4314, 0x4E08_11A1,
    0xF753_7E82, 0xBD3A_F235, 0x2AD7_D2BB, 0xEB86_D391,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(weights: &[(&str, f64)]) -> Vec<(String, f64)> {
        weights.iter().map(|(address, weight)| ((*address).to_owned(), *weight)).collect()
    }

    #[test]
    fn digests_are_those_of_the_standard() {
        let hexadecimal = |bytes: &[u8]| -> String {
            let bytes = md5(bytes).map(u32::to_le_bytes).concat();
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        assert_eq!(hexadecimal(b""), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(hexadecimal(b"message digest"), "f96b697d7cb7938d525a2f31aaf161d0");
        let long = b"1234567890".repeat(8);
        assert_eq!(hexadecimal(&long), "57edf4a22be3c955ac49da2e2107b67a");
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
