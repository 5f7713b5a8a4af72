//! Ranges of items that are deleted, against a model.

use std::collections::{BTreeMap, BTreeSet};

use larder::launch::Launcher;
use larder_client::{ClientConnection, ItemRange};

use super::super::client::{config, noise};
use super::{PATIENCE, items};

/// Numbers that follow from a seed.
struct Choices {
    seed: u64,
    made: u64,
}

impl Choices {
    fn below(&mut self, end: usize) -> usize {
        self.made += 1;
        let bytes = noise(self.seed * 1_000_003 + self.made, 4);
        u32::from_le_bytes(bytes.try_into().expect("4 bytes")) as usize % end
    }

    /// A key of up to three letters.
    fn name(&mut self) -> String {
        let len = self.below(4);
        (0..len).map(|_| ["a", "b", "c"][self.below(3)]).collect()
    }
}

type Model = BTreeMap<(&'static str, String), Vec<u8>>;

fn is_in(range: ItemRange<'_>, name: &str) -> bool {
    let name = name.as_bytes();
    match range {
        ItemRange::Prefix(prefix) => name.starts_with(prefix),
        ItemRange::Between { from, to } => {
            from.is_none_or(|from| name >= from) && to.is_none_or(|to| name < to)
        }
    }
}

/// Changes the node and the model alike.
fn change_both(client: &mut ClientConnection, model: &mut Model, choices: &mut Choices) {
    let record = ["r", "s", "long record", "x"][choices.below(4)];
    let (name, other) = (choices.name(), choices.name());
    let both = (name.as_bytes(), other.as_bytes());
    let range = match choices.below(9) {
        0 => ItemRange::Prefix(both.0),
        1 => ItemRange::Between { from: Some(both.0), to: Some(both.1) },
        2 => ItemRange::Between { from: Some(both.0), to: None },
        3 => ItemRange::Between { from: None, to: Some(both.1) },
        4 if choices.below(8) == 0 => ItemRange::Prefix(b""),
        _ => return put_both(client, model, choices, record),
    };
    client.delete_items(0, record, range).expect("deleted");
    model.retain(|(its_record, name), _| *its_record != record || !is_in(range, name));
}

fn put_both(
    client: &mut ClientConnection,
    model: &mut Model,
    choices: &mut Choices,
    record: &'static str,
) {
    let count = 1 + choices.below(12);
    let names: BTreeSet<String> = (0..count).map(|_| choices.name()).collect();
    let value = noise(choices.made, choices.below(3000));
    let stored: Vec<(&[u8], &[u8])> =
        names.iter().map(|name| (name.as_bytes(), value.as_slice())).collect();
    client.put_items(0, record, &stored).expect("stored");
    model.extend(names.into_iter().map(|name| ((record, name), value.clone())));
}

#[test]
fn ranges_are_gone_from_pages_also_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut config = config(directory.path(), 2);
    config.shards = Some(3);
    let mut model = Model::new();
    for seed in 1..=4 {
        let node = Launcher::default().start(&config).expect("the node starts");
        let address = node.addresses().native.to_string();
        let mut client = ClientConnection::open(&address, PATIENCE).expect("it accepts");
        let mut choices = Choices { seed, made: 0 };
        for step in 0..100 {
            // The first look is at what the restart has left.
            for record in ["r", "s", "long record", "x"] {
                let shown: Vec<_> = items(&mut client, record)
                    .into_iter()
                    .map(|item| (item.item, item.value.expect("a value")))
                    .collect();
                let expected: Vec<_> = model
                    .iter()
                    .filter(|((its_record, _), _)| *its_record == record)
                    .map(|((_, name), value)| (name.clone().into_bytes(), value.clone()))
                    .collect();
                assert!(shown == expected, "seed {seed}, step {step}, {record}");
            }
            change_both(&mut client, &mut model, &mut choices);
        }
        node.stop();
        node.join().expect("a good end");
    }
}
