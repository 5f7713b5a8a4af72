use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const IDENTITY: TableIdentity = TableIdentity { store: 3, table: 4 };

fn bytes(len: Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(0u8), Just(b'a'), Just(0xFF), any::<u8>()], len)
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn build(entries: &BTreeMap<Vec<u8>, Vec<u8>>, restart_interval: u32) -> Vec<u8> {
    let mut builder = BlockBuilder::new(restart_interval);
    for (key, value) in entries {
        assert!(builder.try_add(key, value, usize::MAX));
    }
    let before = builder.section_bytes();
    let handle = builder.seal(IDENTITY, 8192);
    assert_eq!((before, handle.length as usize), (builder.sealed().len(), before));
    builder.sealed().to_vec()
}

fn walk(block: &Block<'_>, bytes: &[u8]) -> Result<Pairs, Malformed> {
    let mut cursor = BlockCursor::default();
    cursor.enter_block();
    let mut found = Vec::new();
    while cursor.advance(block)? {
        found.push((cursor.key().to_vec(), bytes[cursor.value()].to_vec()));
    }
    Ok(found)
}

proptest! {
    #[test]
    fn blocks_round_trip(
        entries in proptest::collection::btree_map(bytes(1..9), bytes(0..20), 1..60),
        absent in proptest::collection::vec(bytes(0..9), 0..20),
        restart_interval in 1u32..20,
    ) {
        let section = build(&entries, restart_interval);
        let block = Block::parse(Section::trusted(&section).unwrap()).unwrap();
        let walked = walk(&block, &section).unwrap();
        prop_assert_eq!(walked, entries.clone().into_iter().collect::<Vec<_>>());
        for key in entries.keys().chain(&absent) {
            let expected = entries.get(key).map(Vec::as_slice);
            prop_assert_eq!(block.find(key).unwrap(), expected);
        }
    }

    #[test]
    fn changed_blocks_never_panic(
        entries in proptest::collection::btree_map(bytes(1..9), bytes(0..9), 1..20),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        target in bytes(0..9),
    ) {
        let mut section = build(&entries, 4);
        for (at, byte) in changes {
            let at = at.index(section.len());
            section[at] = byte;
        }
        if let Ok(block) = Block::parse(Section::trusted(&section).unwrap()) {
            let _found = block.find(&target);
            let _walked = walk(&block, &section);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(section in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(block) = Section::trusted(&section).and_then(Block::parse) {
            let _found = block.find(b"key");
            let _walked = walk(&block, &section);
        }
    }
}

#[test]
fn a_block_takes_what_fits_and_always_one_entry() {
    let mut builder = BlockBuilder::new(16);
    assert!(builder.try_add(b"a", &[0; 5000], 4096));
    assert!(!builder.try_add(b"b", b"", 4096));
    builder.clear();
    let mut count = 0u32;
    while builder.try_add(&count.to_be_bytes(), &[7; 10], 4096) {
        count += 1;
    }
    assert_eq!(builder.entries(), count);
    let bytes = builder.section_bytes();
    assert!((4096 - 20..=4096).contains(&bytes), "{bytes} bytes");
}

#[test]
fn the_checksum_covers_the_place_and_the_parent_must_agree() {
    let section = build(&BTreeMap::from([(b"key".to_vec(), b"value".to_vec())]), 16);
    let length = section.len() as u32;
    let checksum = u32_at(&section, 0).unwrap();
    let handle = SectionHandle { offset: 8192, length, checksum };
    let verify = |identity, handle| Section::verify(identity, handle, &section).is_ok();
    assert!(verify(IDENTITY, handle));
    assert!(!verify(TableIdentity { store: 9, ..IDENTITY }, handle));
    assert!(!verify(TableIdentity { table: 9, ..IDENTITY }, handle));
    assert!(!verify(IDENTITY, SectionHandle { offset: 4096, ..handle }));
    assert!(!verify(IDENTITY, SectionHandle { length: length - 1, ..handle }));
    assert!(!verify(IDENTITY, SectionHandle { length: length + 1, ..handle }));
    assert!(!verify(IDENTITY, SectionHandle { checksum: checksum ^ 1, ..handle }));
}
