//! Namespaces: `schema/namespace_change.fbs` and `schema/namespaces.fbs`.

use flatbuffers::{FlatBufferBuilder, InvalidFlatbuffer, Push, TableFinishedWIPOffset, WIPOffset};

use super::request::BodyError;
use super::structured::{Reader, StructureError, slot, told, write_table};

/// The longest name of a namespace, in bytes.
pub const NAMESPACE_NAME_BYTES_MAX: usize = 64;

/// What [`NamespaceSettings::compress_from`] is where nothing is compressed.
pub const COMPRESS_NEVER: u32 = u32::MAX;

/// The schemas' `file_identifier`s.
const CHANGE: &str = "LRNC";
const NAMESPACES: &str = "LRNS";

/// The least that a namespace of a list takes in its body, in bytes: the offset to its table, the
/// table's offset to its own layout, its number, and the offset to its name.
const NAMESPACE_BYTES_MIN: usize = 16;

/// When a change is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum NamespaceDurability {
    /// As the node's option says.
    #[default]
    Node = 0,
    /// When it is durable.
    Sync = 1,
    /// When it is made.
    None = 2,
}

/// What the node's caches keep of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum NamespaceCache {
    /// Values, and what leads to them.
    #[default]
    Values = 0,
    /// What leads to them.
    KeysOnly = 1,
    /// Nothing.
    Bypass = 2,
}

/// How a namespace is. Each 0 is what the node takes for usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceSettings {
    /// Seconds to live of what is stored without any; 0 for ever.
    pub ttl_default: u32,
    /// The most seconds to live; 0 for no limit.
    pub ttl_max: u32,
    /// By how many percent items live shorter at most than they are told, 0 to 100.
    pub ttl_jitter_percent: u8,
    /// The longest value, in bytes.
    pub value_bytes_max: u32,
    /// Items of a page at most.
    pub page_items_max: u32,
    /// Bytes of keys and values in a page at most.
    pub page_bytes_max: u32,
    /// When a change is answered.
    pub durability: NamespaceDurability,
    /// What caches keep.
    pub cache: NamespaceCache,
    /// Values of so many bytes or more are compressed; [`COMPRESS_NEVER`] for none.
    pub compress_from: u32,
    /// What it may take of the disk, in bytes; 0 for no limit.
    pub bytes_max: u64,
    /// What a record may have, in bytes of item keys and values; 0 for no limit.
    pub record_bytes_max: u64,
}

/// Settings that are to be as said; what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SettingsChange {
    /// As [`NamespaceSettings::ttl_default`].
    pub ttl_default: Option<u32>,
    /// As [`NamespaceSettings::ttl_max`].
    pub ttl_max: Option<u32>,
    /// As [`NamespaceSettings::ttl_jitter_percent`].
    pub ttl_jitter_percent: Option<u8>,
    /// As [`NamespaceSettings::value_bytes_max`].
    pub value_bytes_max: Option<u32>,
    /// As [`NamespaceSettings::page_items_max`].
    pub page_items_max: Option<u32>,
    /// As [`NamespaceSettings::page_bytes_max`].
    pub page_bytes_max: Option<u32>,
    /// As [`NamespaceSettings::durability`].
    pub durability: Option<NamespaceDurability>,
    /// As [`NamespaceSettings::cache`].
    pub cache: Option<NamespaceCache>,
    /// As [`NamespaceSettings::compress_from`].
    pub compress_from: Option<u32>,
    /// As [`NamespaceSettings::bytes_max`].
    pub bytes_max: Option<u64>,
    /// As [`NamespaceSettings::record_bytes_max`].
    pub record_bytes_max: Option<u64>,
}

impl SettingsChange {
    /// Settings of which these are changed.
    pub fn of(&self, before: NamespaceSettings) -> NamespaceSettings {
        NamespaceSettings {
            ttl_default: self.ttl_default.unwrap_or(before.ttl_default),
            ttl_max: self.ttl_max.unwrap_or(before.ttl_max),
            ttl_jitter_percent: self.ttl_jitter_percent.unwrap_or(before.ttl_jitter_percent),
            value_bytes_max: self.value_bytes_max.unwrap_or(before.value_bytes_max),
            page_items_max: self.page_items_max.unwrap_or(before.page_items_max),
            page_bytes_max: self.page_bytes_max.unwrap_or(before.page_bytes_max),
            durability: self.durability.unwrap_or(before.durability),
            cache: self.cache.unwrap_or(before.cache),
            compress_from: self.compress_from.unwrap_or(before.compress_from),
            bytes_max: self.bytes_max.unwrap_or(before.bytes_max),
            record_bytes_max: self.record_bytes_max.unwrap_or(before.record_bytes_max),
        }
    }
}

impl From<NamespaceSettings> for SettingsChange {
    fn from(settings: NamespaceSettings) -> Self {
        Self {
            ttl_default: Some(settings.ttl_default),
            ttl_max: Some(settings.ttl_max),
            ttl_jitter_percent: Some(settings.ttl_jitter_percent),
            value_bytes_max: Some(settings.value_bytes_max),
            page_items_max: Some(settings.page_items_max),
            page_bytes_max: Some(settings.page_bytes_max),
            durability: Some(settings.durability),
            cache: Some(settings.cache),
            compress_from: Some(settings.compress_from),
            bytes_max: Some(settings.bytes_max),
            record_bytes_max: Some(settings.record_bytes_max),
        }
    }
}

/// A namespace to create or to change, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceChange<'a> {
    /// Its name.
    pub name: &'a str,
    /// How it is to be.
    pub settings: SettingsChange,
}

/// A namespace, as a node shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NativeNamespace {
    /// Its name.
    pub name: String,
    /// The number that requests name it by.
    pub number: u32,
    /// How it is.
    pub settings: NamespaceSettings,
}

/// Whether a namespace may have this name. One of digits alone would be taken for a number.
pub fn is_namespace_name(name: &str) -> bool {
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    !is_number && name.len() <= NAMESPACE_NAME_BYTES_MAX && name.bytes().all(is_sign)
}

type Builder = FlatBufferBuilder<'static>;

type Checked<T> = Result<T, BodyError>;

const NAME: BodyError = "a namespace's name is 1 to 64 of a-z, A-Z, 0-9, _, . and -, and no number";

fn push<P: Push + Default + PartialEq>(builder: &mut Builder, index: usize, value: Option<P>) {
    if let Some(value) = value {
        builder.push_slot_always(slot(index), value);
    }
}

impl SettingsChange {
    fn write(&self, builder: &mut Builder) -> WIPOffset<TableFinishedWIPOffset> {
        write_table(builder, |builder| {
            push(builder, 10, self.record_bytes_max);
            push(builder, 9, self.bytes_max);
            push(builder, 0, self.ttl_default);
            push(builder, 1, self.ttl_max);
            push(builder, 3, self.value_bytes_max);
            push(builder, 4, self.page_items_max);
            push(builder, 5, self.page_bytes_max);
            push(builder, 8, self.compress_from);
            push(builder, 2, self.ttl_jitter_percent);
            push(builder, 6, self.durability.map(|durability| durability as u8));
            push(builder, 7, self.cache.map(|cache| cache as u8));
        })
    }

    fn read(
        reader: &mut Reader<'_, '_>,
        table: Option<usize>,
    ) -> Result<Checked<Self>, InvalidFlatbuffer> {
        let Some(table) = table else { return Ok(Ok(Self::default())) };
        let fields: [_; 11] = reader.fields(table)?;
        let number = |reader: &mut Reader<'_, '_>, field: Option<usize>| {
            field.map(|_| reader.u32(field)).transpose()
        };
        let byte = |reader: &mut Reader<'_, '_>, field: Option<usize>| {
            field.map(|_| reader.u8(field)).transpose()
        };
        let change = Self {
            ttl_default: number(reader, fields[0])?,
            ttl_max: number(reader, fields[1])?,
            ttl_jitter_percent: byte(reader, fields[2])?,
            value_bytes_max: number(reader, fields[3])?,
            page_items_max: number(reader, fields[4])?,
            page_bytes_max: number(reader, fields[5])?,
            compress_from: number(reader, fields[8])?,
            bytes_max: fields[9].map(|_| reader.u64(fields[9])).transpose()?,
            record_bytes_max: fields[10].map(|_| reader.u64(fields[10])).transpose()?,
            ..Self::default()
        };
        let (durability, cache) = (byte(reader, fields[6])?, byte(reader, fields[7])?);
        Ok(change.checked(durability, cache))
    }

    fn checked(self, durability: Option<u8>, cache: Option<u8>) -> Checked<Self> {
        if self.ttl_jitter_percent.is_some_and(|percent| percent > 100) {
            return Err("ttl_jitter_percent is 0 to 100");
        }
        let durability = durability.map(|byte| match byte {
            0 => Ok(NamespaceDurability::Node),
            1 => Ok(NamespaceDurability::Sync),
            2 => Ok(NamespaceDurability::None),
            _ => Err("there is no such durability"),
        });
        let cache = cache.map(|byte| match byte {
            0 => Ok(NamespaceCache::Values),
            1 => Ok(NamespaceCache::KeysOnly),
            2 => Ok(NamespaceCache::Bypass),
            _ => Err("there is no such cache policy"),
        });
        Ok(Self { durability: durability.transpose()?, cache: cache.transpose()?, ..self })
    }
}

/// Appends the body of a request: the name, if one is meant, and the settings, if there are some.
pub(super) fn put_change(name: Option<&str>, settings: Option<&SettingsChange>, out: &mut Vec<u8>) {
    let mut builder = Builder::with_capacity(256);
    let name = name.map(|name| builder.create_string(name));
    let settings = settings.map(|settings| settings.write(&mut builder));
    let root = write_table(&mut builder, |builder| {
        if let Some(name) = name {
            builder.push_slot_always(slot(0), name);
        }
        if let Some(settings) = settings {
            builder.push_slot_always(slot(1), settings);
        }
    });
    builder.finish(root, Some(CHANGE));
    out.extend_from_slice(builder.finished_data());
}

/// Reads the body of a request: the name, if there is one, and the settings.
fn read_change(body: &[u8]) -> Checked<(Option<&str>, Option<SettingsChange>)> {
    told(Reader::read(body, CHANGE, |reader, root| {
        let [name, settings] = reader.fields::<2>(root)?;
        let name = reader.optional_bytes(name)?;
        let table = reader.table(settings)?;
        let settings = SettingsChange::read(reader, table)?;
        let check = || {
            let name = name.map(|name| {
                let name = std::str::from_utf8(name).ok();
                name.filter(|name| is_namespace_name(name)).ok_or(NAME)
            });
            let settings = settings?;
            Ok((name.transpose()?, table.map(|_| settings)))
        };
        Ok(check())
    }))
}

/// Reads the body of a request that creates or changes a namespace.
pub(super) fn read_settings(body: &[u8]) -> Checked<NamespaceChange<'_>> {
    let (name, settings) = read_change(body)?;
    Ok(NamespaceChange { name: name.ok_or(NAME)?, settings: settings.unwrap_or_default() })
}

/// Reads the body of a request that names a namespace, or perhaps all.
pub(super) fn read_name(body: &[u8]) -> Checked<Option<&str>> {
    match read_change(body)? {
        (name, None) => Ok(name),
        (_, Some(_)) => Err("settings are of requests to create or to set a namespace only"),
    }
}

/// Reads the body of a request that names one namespace.
pub(super) fn read_one_name(body: &[u8]) -> Checked<&str> {
    read_name(body)?.ok_or(NAME)
}

impl NativeNamespace {
    /// The body of a reply with these namespaces.
    pub fn encode_all<'n>(namespaces: impl Iterator<Item = &'n Self>) -> Vec<u8> {
        let mut builder = Builder::with_capacity(1024);
        let tables: Vec<_> = namespaces.map(|namespace| namespace.write(&mut builder)).collect();
        let tables = builder.create_vector(&tables);
        let root = write_table(&mut builder, |builder| {
            builder.push_slot_always(slot(0), tables);
        });
        builder.finish(root, Some(NAMESPACES));
        builder.finished_data().to_vec()
    }

    /// Reads such a body. Never panics, whatever the bytes are, and takes memory in proportion to
    /// them. Settings that this version does not know are as if they were not there.
    ///
    /// # Errors
    /// If they are no such body.
    pub fn decode_all(body: &[u8]) -> Result<Vec<Self>, StructureError> {
        Reader::read(body, NAMESPACES, |reader, root| {
            let [namespaces] = reader.fields(root)?;
            reader.tables(namespaces, NAMESPACE_BYTES_MIN, Self::read)
        })
    }

    fn write(&self, builder: &mut Builder) -> WIPOffset<TableFinishedWIPOffset> {
        let name = builder.create_string(&self.name);
        let settings = SettingsChange::from(self.settings).write(builder);
        write_table(builder, |builder| {
            builder.push_slot_always(slot(0), name);
            builder.push_slot_always(slot(2), settings);
            builder.push_slot(slot(1), self.number, 0);
        })
    }

    fn read(reader: &mut Reader<'_, '_>, table: usize) -> Result<Self, InvalidFlatbuffer> {
        let [name, number, settings] = reader.fields(table)?;
        let name = String::from_utf8_lossy(reader.bytes(name)?).into_owned();
        let number = reader.u32(number)?;
        let settings = reader.table(settings)?;
        let change = SettingsChange::read(reader, settings)?.unwrap_or_default();
        Ok(Self { name, number, settings: change.of(NamespaceSettings::default()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace() -> NativeNamespace {
        let settings = NamespaceSettings {
            ttl_default: 1,
            ttl_max: 2,
            ttl_jitter_percent: 3,
            value_bytes_max: 4,
            page_items_max: 5,
            page_bytes_max: 6,
            durability: NamespaceDurability::None,
            cache: NamespaceCache::Bypass,
            compress_from: COMPRESS_NEVER,
            bytes_max: 1 << 40,
            record_bytes_max: 1 << 33,
        };
        NativeNamespace { name: "users".to_owned(), number: 7, settings }
    }

    #[test]
    fn namespaces_round_trip() {
        let plain = NativeNamespace { number: 1, ..NativeNamespace::default() };
        for list in [vec![], vec![namespace()], vec![plain, namespace()]] {
            let body = NativeNamespace::encode_all(list.iter());
            assert_eq!(NativeNamespace::decode_all(&body), Ok(list));
        }
    }

    #[test]
    fn what_a_change_does_not_name_stays() {
        let before = namespace().settings;
        assert_eq!(SettingsChange::default().of(before), before);
        let all = SettingsChange::from(before);
        assert_eq!(all.of(NamespaceSettings::default()), before);
        let change = SettingsChange { ttl_max: Some(0), ..SettingsChange::default() };
        assert_eq!(change.of(before), NamespaceSettings { ttl_max: 0, ..before });
        let mut body = Vec::new();
        put_change(Some("n"), Some(&change), &mut body);
        assert_eq!(read_settings(&body), Ok(NamespaceChange { name: "n", settings: change }));
    }

    #[test]
    fn names_are_short_and_plain() {
        for name in ["a", "Users_1.x-y", &"n".repeat(64)] {
            assert!(is_namespace_name(name), "{name}");
        }
        for name in ["", "17", " ", "a b", "a/b", "\u{fc}", &"n".repeat(65)] {
            assert!(!is_namespace_name(name), "{name}");
            let mut body = Vec::new();
            put_change(Some(name), None, &mut body);
            assert_eq!(read_one_name(&body), Err(NAME));
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let over = SettingsChange { ttl_jitter_percent: Some(101), ..SettingsChange::default() };
        let mut body = Vec::new();
        put_change(Some("n"), Some(&over), &mut body);
        assert!(read_settings(&body).is_err());
        body.clear();
        put_change(Some("n"), Some(&SettingsChange::default()), &mut body);
        assert!(read_settings(&body).is_ok() && read_name(&body).is_err());
        body.clear();
        put_change(None, None, &mut body);
        assert_eq!(read_name(&body), Ok(None));
        assert!(read_one_name(&body).is_err() && read_settings(&body).is_err());
        let known = SettingsChange::default();
        assert!(known.checked(Some(3), None).is_err() && known.checked(None, Some(3)).is_err());
    }
}
