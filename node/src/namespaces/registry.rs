//! What is remembered of the namespaces: items of a record on shard 0.
//!
//! | item key | value |
//! |---|---|
//! | nothing | u32, little endian: the number of the next namespace |
//! | its number, u32, big endian | the namespace, as in `protocol/schema/namespaces.fbs` |
//! | its number, as above, and a byte 1 | nothing: the namespace is not being dropped |
//!
//! To drop a namespace takes deletions alone, which a full disk does not refuse.
//!
//! Numbers are never given out again: a client that still uses the number of a namespace that was
//! dropped must not write into another one.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use larder_engine::key::{DEFAULT_NAMESPACE, RESERVED_NAMESPACES};
use larder_engine::operation::{Delete, Operation, Store, StoreMode};
use larder_engine::scan::{PageItem, Scan};
use larder_engine::shard::{BatchStep, ItemBatch, OperationBuf, Shard};
use larder_protocol::native::NativeNamespace;
use larder_runtime::env::Env;

use super::NamespaceTable;

/// The namespace in which the registry is.
const REGISTRY_NAMESPACE: u32 = *RESERVED_NAMESPACES.end();

/// The shard that keeps it.
pub const REGISTRY_SHARD: u16 = 0;

const RECORD: &[u8] = b"namespaces";

/// The item with the next number.
const NEXT: &[u8] = b"";

/// The number of the first namespace that a user makes.
const FIRST_NUMBER: u32 = 1;

/// The last byte of the item that says that a namespace lives.
const LIVES: u8 = 1;

/// A change of the registry: what is written together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryEntry {
    /// A namespace as it is.
    Put(NativeNamespace),
    /// A new one, and the number of the one after it.
    New(NativeNamespace),
    /// The number of one that is being dropped.
    Dropping(u32),
    /// The number of one that is gone.
    Gone(u32),
}

impl RegistryEntry {
    /// The change as a batch of a shard.
    pub fn batch(&self) -> ItemBatch {
        let put = |namespace: &NativeNamespace| {
            let body = NativeNamespace::encode_all(std::iter::once(namespace));
            step(&namespace.number.to_be_bytes(), Some(&body))
        };
        let steps = match self {
            // Nobody makes the default one, so this may be the first that is written of it.
            Self::Put(namespace) if namespace.number == DEFAULT_NAMESPACE => {
                vec![put(namespace), step(&lives(namespace.number), Some(b""))]
            }
            Self::Put(namespace) => vec![put(namespace)],
            Self::New(namespace) => {
                let next = namespace.number + 1;
                let lives = step(&lives(namespace.number), Some(b""));
                vec![put(namespace), lives, step(NEXT, Some(&next.to_le_bytes()))]
            }
            Self::Dropping(number) => vec![step(&lives(*number), None)],
            Self::Gone(number) => vec![step(&number.to_be_bytes(), None)],
        };
        ItemBatch { value_bytes_max: usize::MAX, steps, once: None }
    }
}

/// The key of the item that says that a namespace lives.
fn lives(number: u32) -> [u8; 5] {
    let [a, b, c, d] = number.to_be_bytes();
    [a, b, c, d, LIVES]
}

/// A step that stores an item, or deletes it.
fn step(item: &[u8], value: Option<&[u8]>) -> BatchStep {
    let operation = match value {
        Some(value) => Operation::Store(Store {
            mode: StoreMode::Set,
            value,
            client_flags: 0,
            expiry: 0,
            compare: None,
            invalidate: false,
            is_large: false,
            vivify: None,
            version: None,
        }),
        None => Operation::Delete(Delete::default()),
    };
    let operation = OperationBuf::new(&operation);
    let (namespace, record) = (REGISTRY_NAMESPACE, RECORD.to_vec());
    BatchStep { namespace, record, item: item.to_vec(), operation }
}

/// All that is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// The namespaces that there are.
    pub table: NamespaceTable,
    /// The number of the next one.
    pub next: u32,
    /// The numbers of those that were being dropped when the node stopped.
    pub dropping: Vec<u32>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { table: NamespaceTable::default(), next: FIRST_NUMBER, dropping: Vec::new() }
    }
}

impl Registry {
    /// Reads what shard 0 remembers.
    ///
    /// # Errors
    ///
    /// If it cannot be read, in words for people: then it is not known which data is whose.
    pub async fn load<E: Env>(shard: &Rc<Shard<E>>) -> Result<Self, String> {
        let mut found = Found::default();
        let mut scan = Scan::of_record(REGISTRY_NAMESPACE, RECORD);
        loop {
            let page = shard.scan(scan.clone()).await;
            let page = page.map_err(|error| format!("cannot read the namespaces: {error}"))?;
            for item in &page.items {
                found.take(item).ok_or_else(|| {
                    let key = item.item.escape_ascii();
                    format!("what is remembered of namespace {key} is not as any version writes it")
                })?;
            }
            match page.next {
                Some(place) => scan = scan.after(&place),
                None => return Ok(found.registry()),
            }
        }
    }
}

/// What the items say that were read so far.
#[derive(Debug, Default)]
struct Found {
    next: Option<u32>,
    namespaces: BTreeMap<u32, NativeNamespace>,
    living: BTreeSet<u32>,
}

impl Found {
    /// Takes one item in; `None` if it is none of the registry's.
    fn take(&mut self, item: &PageItem) -> Option<()> {
        let value = item.value.as_deref()?;
        match *item.item.as_slice() {
            [] => self.next = Some(u32::from_le_bytes(value.try_into().ok()?)),
            [a, b, c, d] => {
                let number = u32::from_be_bytes([a, b, c, d]);
                let mut namespaces = NativeNamespace::decode_all(value).ok()?;
                let namespace = namespaces.pop().filter(|found| found.number == number)?;
                self.namespaces.insert(number, namespace);
            }
            [a, b, c, d, LIVES] => drop(self.living.insert(u32::from_be_bytes([a, b, c, d]))),
            _ => return None,
        }
        Some(())
    }

    fn registry(self) -> Registry {
        let Self { next, namespaces, living } = self;
        let mut registry = Registry::default();
        registry.next = next.unwrap_or(registry.next);
        for (number, namespace) in namespaces {
            if living.contains(&number) {
                registry.table = registry.table.with(namespace);
            } else {
                registry.dropping.push(number);
            }
        }
        registry
    }
}

#[cfg(test)]
mod tests {
    use larder_protocol::native::NamespaceSettings;

    use super::*;

    fn item(step: &BatchStep) -> PageItem {
        let Operation::Store(store) = step.operation.as_operation() else { panic!("{step:?}") };
        PageItem {
            record: step.record.clone(),
            item: step.item.clone(),
            metadata: Default::default(),
            value_len: store.value.len(),
            value: Some(store.value.to_vec()),
            last_use: None,
        }
    }

    fn namespace(number: u32, name: &str) -> NativeNamespace {
        NativeNamespace { number, name: name.to_owned(), ..NativeNamespace::default() }
    }

    #[test]
    fn what_is_written_is_taken_back() {
        let mut found = Found::default();
        let (users, old) = (namespace(1, "users"), namespace(2, "old"));
        for step in [RegistryEntry::Put(old), RegistryEntry::New(users.clone())]
            .map(|it| it.batch().steps)
            .concat()
        {
            found.take(&item(&step)).expect("it is the registry's");
        }
        let table = NamespaceTable::default().with(users);
        assert_eq!(found.registry(), Registry { table, next: 2, dropping: vec![2] });
        assert_eq!(Found::default().registry(), Registry::default());
    }

    #[test]
    fn the_default_namespace_is_remembered_when_it_was_changed() {
        let settings = NamespaceSettings { ttl_default: 60, ..NamespaceSettings::default() };
        let default = NativeNamespace { settings, ..namespace(DEFAULT_NAMESPACE, "default") };
        let mut found = Found::default();
        for step in RegistryEntry::Put(default.clone()).batch().steps {
            found.take(&item(&step)).expect("it is the registry's");
        }
        let table = NamespaceTable::default().with(default);
        assert_eq!(found.registry(), Registry { table, ..Registry::default() });
    }

    #[test]
    fn to_drop_a_namespace_takes_deletions_alone() {
        for entry in [RegistryEntry::Dropping(3), RegistryEntry::Gone(3)] {
            assert!(!entry.batch().adds(), "{entry:?}");
        }
    }

    #[test]
    fn what_is_not_the_registrys_is_refused() {
        let good = item(&RegistryEntry::Put(namespace(1, "users")).batch().steps[0]);
        let with = |change: &dyn Fn(&mut PageItem)| {
            let mut item = good.clone();
            change(&mut item);
            Found::default().take(&item)
        };
        assert_eq!(with(&|_| ()), Some(()));
        assert_eq!(with(&|item| item.item = vec![0, 0, 0, 2]), None, "another's number");
        assert_eq!(with(&|item| item.item = vec![1]), None);
        assert_eq!(with(&|item| item.item = vec![0, 0, 0, 1, 2]), None);
        assert_eq!(with(&|item| item.item = Vec::new()), None);
        assert_eq!(with(&|item| item.value = Some(vec![])), None);
        assert_eq!(with(&|item| item.value = Some(vec![0; 40])), None);
    }
}
