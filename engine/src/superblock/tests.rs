use super::*;

fn superblock(sequence: u64) -> Superblock {
    Superblock {
        sequence,
        identity: ShardIdentity {
            store_id: 77,
            shard_index: 1,
            shard_count: 2,
            route_seed: 0,
            segment_bytes: 64 << 20,
        },
        manifest_number: 10 + sequence,
    }
}

/// Copies with these sequences; 0 stands for a damaged copy, `None` for an unreadable one.
fn copies(sequences: [Option<u64>; COPIES]) -> Copies {
    sequences.map(|sequence| {
        let sequence = sequence?;
        let mut block = superblock(sequence).encode();
        if sequence == 0 {
            block[STORE_ID_AT] ^= 1;
        }
        Some(Box::new(block))
    })
}

fn chosen(sequences: [u64; COPIES]) -> Result<u64, Refusal> {
    choose(&copies(sequences.map(Some))).map(|superblock| superblock.sequence)
}

/// Recomputes the checksum after a field was changed.
fn seal(block: &mut Block) {
    let sum = checksum(block);
    block[CHECKSUM_AT..SEQUENCE_AT].copy_from_slice(&sum.to_le_bytes());
}

const DISAGREE: Result<u64, Refusal> = Err(Refusal::Damaged("its copies disagree"));
const NONE_INTACT: Result<u64, Refusal> = Err(Refusal::Damaged("none of its copies is intact"));

#[test]
fn the_newest_block_with_two_copies_is_in_force() {
    assert_eq!(chosen([5, 5, 5, 5]), Ok(5));
    assert_eq!(chosen([6, 6, 5, 5]), Ok(6));
    assert_eq!(chosen([6, 5, 5, 5]), Ok(5), "one copy of a newer block does not count");
    assert_eq!(chosen([6, 0, 5, 5]), Ok(5));
    assert_eq!(chosen([0, 6, 6, 5]), Ok(6));
    assert_eq!(chosen([0, 5, 0, 5]), Ok(5));
}

#[test]
fn without_a_quorum_only_a_copy_that_nothing_contradicts_is_accepted() {
    assert_eq!(chosen([0, 0, 5, 0]), Ok(5));
    assert_eq!(chosen([6, 0, 5, 0]), DISAGREE);
    assert_eq!(chosen([7, 6, 5, 0]), DISAGREE);
    assert_eq!(chosen([0, 0, 0, 0]), NONE_INTACT);
    let unreadable = copies([None, None, Some(5), None]);
    assert_eq!(choose(&unreadable), Ok(superblock(5)));
    assert_eq!(choose(&Copies::default()).map(|_| 0), NONE_INTACT);
}

#[test]
fn two_quorums_of_one_sequence_are_refused() {
    let mut mixed = copies([Some(5); COPIES]);
    let other = Superblock { manifest_number: 99, ..superblock(5) };
    mixed[2] = Some(Box::new(other.encode()));
    mixed[3] = Some(Box::new(other.encode()));
    assert_eq!(choose(&mixed).map(|_| 0), DISAGREE);
}

#[test]
fn another_format_is_named_even_if_this_version_cannot_check_its_blocks() {
    let mut block = superblock(5).encode();
    block[FORMAT_AT] = 9;
    let unverifiable = Copies::default().map(|_| Some(Box::new(block)));
    assert_eq!(choose(&unverifiable), Err(Refusal::WrongFormat(9)));
    seal(&mut block);
    let verifiable = Copies::default().map(|_| Some(Box::new(block)));
    assert_eq!(choose(&verifiable), Err(Refusal::WrongFormat(9)));
}

#[test]
fn a_damaged_version_field_is_damage_and_no_other_format() {
    let mut damaged = copies([Some(5); COPIES]);
    damaged[1].as_mut().unwrap()[FORMAT_AT] = 9;
    assert_eq!(choose(&damaged), Ok(superblock(5)));
    let mut lone = copies([Some(0); COPIES]);
    lone[1].as_mut().unwrap()[FORMAT_AT] = 9;
    assert_eq!(choose(&lone).map(|_| 0), NONE_INTACT);
}

#[test]
fn fields_out_of_range_are_refused() {
    let out_of_range = Refusal::Damaged("its fields are out of range");
    let changes: [fn(&mut Superblock); 4] = [
        |superblock| superblock.identity.shard_index = superblock.identity.shard_count,
        |superblock| superblock.identity.segment_bytes = 0,
        |superblock| superblock.identity.segment_bytes = 4097,
        |superblock| superblock.manifest_number = u64::MAX,
    ];
    for change in changes {
        let mut bad = superblock(5);
        change(&mut bad);
        let copies = Copies::default().map(|_| Some(Box::new(bad.encode())));
        assert_eq!(choose(&copies), Err(out_of_range), "{bad:?}");
    }
}

#[test]
fn every_damaged_byte_of_a_copy_is_noticed() {
    let block = superblock(5).encode();
    assert_eq!(Superblock::decode(&block), Some(superblock(5)));
    for index in 0..BLOCK_BYTES {
        for bit in 0..8 {
            let mut damaged = block;
            damaged[index] ^= 1 << bit;
            assert!(!is_intact(&damaged), "bit {bit} of byte {index}");
        }
    }
}

/// The bytes are part of the format: see FORMAT.md.
#[test]
fn the_block_is_laid_out_as_documented() {
    let block = superblock(5).encode();
    let mut expected = Vec::new();
    expected.extend_from_slice(b"LARDERSB");
    expected.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    expected.extend_from_slice(&checksum(&block).to_le_bytes());
    expected.extend_from_slice(&5u64.to_le_bytes());
    expected.extend_from_slice(&77u128.to_le_bytes());
    expected.extend_from_slice(&15u64.to_le_bytes());
    expected.extend_from_slice(&0u64.to_le_bytes());
    expected.extend_from_slice(&(64u32 << 20).to_le_bytes());
    expected.extend_from_slice(&1u16.to_le_bytes());
    expected.extend_from_slice(&2u16.to_le_bytes());
    expected.resize(BLOCK_BYTES, 0);
    assert_eq!(block.as_slice(), expected);
}
