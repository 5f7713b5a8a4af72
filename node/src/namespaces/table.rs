//! All namespaces at one moment.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use larder_engine::key::DEFAULT_NAMESPACE;
use larder_engine::shard::{CachePolicy, NamespaceCompression, NamespaceOptions};
use larder_protocol::native::{COMPRESS_NEVER, NamespaceCache, NamespaceSettings, NativeNamespace};

use super::rules::ItemRules;

/// The name of the namespace that the memcached port uses.
const DEFAULT_NAME: &str = "default";

/// Which namespaces there are. The default one is always among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceTable {
    by_number: BTreeMap<u32, NativeNamespace>,
    by_name: BTreeMap<String, u32>,
}

impl Default for NamespaceTable {
    fn default() -> Self {
        let (number, settings) = (DEFAULT_NAMESPACE, NamespaceSettings::default());
        let default = NativeNamespace { name: DEFAULT_NAME.to_owned(), number, settings };
        let empty = Self { by_number: BTreeMap::new(), by_name: BTreeMap::new() };
        empty.with(default)
    }
}

impl NamespaceTable {
    /// The same with this namespace, as it is now.
    #[must_use]
    pub fn with(&self, namespace: NativeNamespace) -> Self {
        let mut table = self.clone();
        table.by_name.insert(namespace.name.clone(), namespace.number);
        table.by_number.insert(namespace.number, namespace);
        table
    }

    /// The same without the namespace of this number.
    #[must_use]
    pub fn without(&self, number: u32) -> Self {
        let mut table = self.clone();
        if let Some(namespace) = table.by_number.remove(&number) {
            table.by_name.remove(&namespace.name);
        }
        table
    }

    /// How the namespace with this number is, if there is one.
    pub fn settings(&self, number: u32) -> Option<NamespaceSettings> {
        self.by_number.get(&number).map(|namespace| namespace.settings)
    }

    /// The namespace of this name.
    pub fn named(&self, name: &str) -> Option<&NativeNamespace> {
        self.by_number.get(self.by_name.get(name)?)
    }

    /// All, by number.
    pub fn iter(&self) -> impl Iterator<Item = &NativeNamespace> {
        self.by_number.values()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.by_number.len()
    }

    /// What each of so many shards is told.
    pub fn options(&self, shards: u16) -> BTreeMap<u32, NamespaceOptions> {
        let of_shard = |namespace: &NativeNamespace| {
            let NamespaceSettings { cache, compress_from, value_bytes_max, .. } =
                namespace.settings;
            let NamespaceSettings { bytes_max, record_bytes_max, .. } = namespace.settings;
            let options = NamespaceOptions {
                cache: match cache {
                    NamespaceCache::Values => CachePolicy::Values,
                    NamespaceCache::KeysOnly => CachePolicy::KeysOnly,
                    NamespaceCache::Bypass => CachePolicy::Bypass,
                },
                compression: match compress_from {
                    0 => NamespaceCompression::AsShard,
                    COMPRESS_NEVER => NamespaceCompression::Never,
                    bytes => NamespaceCompression::From(bytes as usize),
                },
                value_bytes_max: (value_bytes_max > 0).then_some(value_bytes_max as usize),
                bytes_max: (bytes_max > 0).then(|| bytes_max.div_ceil(u64::from(shards))),
                record_bytes_max: (record_bytes_max > 0).then_some(record_bytes_max),
            };
            (namespace.number, options)
        };
        self.iter().map(of_shard).collect()
    }
}

/// A core's table. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct NamespaceView(Rc<Viewed>);

#[derive(Debug, Default)]
struct Viewed {
    table: RefCell<Arc<NamespaceTable>>,
    /// Those of the default one, which nearly all requests ask for.
    default: Cell<ItemRules>,
}

impl NamespaceView {
    /// A view of this table.
    pub fn new(table: Arc<NamespaceTable>) -> Self {
        let view = Self::default();
        view.set(table);
        view
    }

    /// The table as it is now.
    pub fn table(&self) -> Arc<NamespaceTable> {
        Arc::clone(&self.0.table.borrow())
    }

    /// Another table is the current one from now on.
    pub fn set(&self, table: Arc<NamespaceTable>) {
        let settings = table.settings(DEFAULT_NAMESPACE).unwrap_or_default();
        self.0.default.set(ItemRules::of(&settings));
        *self.0.table.borrow_mut() = table;
    }

    /// How the namespace with this number is, if there is one.
    pub fn settings(&self, number: u32) -> Option<NamespaceSettings> {
        self.0.table.borrow().settings(number)
    }

    /// What rules the items of the namespace with this number, if there is one.
    #[inline]
    pub fn rules(&self, number: u32) -> Option<ItemRules> {
        if number == DEFAULT_NAMESPACE {
            return Some(self.default_rules());
        }
        self.settings(number).as_ref().map(ItemRules::of)
    }

    /// What rules the items of the default namespace.
    #[inline]
    pub fn default_rules(&self) -> ItemRules {
        self.0.default.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_namespace_is_always_there() {
        let table = NamespaceTable::default();
        assert_eq!(table.named("default").map(|namespace| namespace.number), Some(0));
        assert_eq!(table.settings(0), Some(NamespaceSettings::default()));
        assert_eq!((table.settings(1), table.count()), (None, 1));
        let usual = BTreeMap::from([(0, NamespaceOptions::default())]);
        assert_eq!(table.options(2), usual, "it is as the node's options say");
    }

    #[test]
    fn a_namespace_is_found_by_number_and_by_name_until_it_is_dropped() {
        let settings = NamespaceSettings { bytes_max: 101, ..NamespaceSettings::default() };
        let users = NativeNamespace { name: "users".to_owned(), number: 7, settings };
        let table = NamespaceTable::default().with(users.clone());
        assert_eq!((table.named("users"), table.settings(7)), (Some(&users), Some(settings)));
        assert_eq!(table.options(2)[&7].bytes_max, Some(51));
        assert_eq!(table.without(7), NamespaceTable::default());
        assert_eq!(table.without(8), table);
        let view = NamespaceView::new(Arc::new(table));
        let same = view.clone();
        view.set(Arc::default());
        assert_eq!((same.settings(7), same.settings(0).is_some()), (None, true));
        assert_eq!((same.rules(7), same.rules(0)), (None, Some(ItemRules::default())));
        let settings = NamespaceSettings { ttl_default: 9, ..NamespaceSettings::default() };
        let changed = NativeNamespace { name: "default".to_owned(), number: 0, settings };
        view.set(Arc::new(NamespaceTable::default().with(changed).with(NativeNamespace {
            name: "users".to_owned(),
            number: 7,
            settings,
        })));
        let rules = Some(ItemRules::of(&settings));
        assert_eq!((same.rules(7), same.rules(0)), (rules, rules));
    }
}
