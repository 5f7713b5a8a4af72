//! `larder ns`: the namespaces of a running node; and how other commands name one.

use std::io::{self, Write};
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use larder_client::{
    COMPRESS_NEVER, ClientConnection, NamespaceCache, NamespaceDurability, NamespaceSettings,
    NativeNamespace, SettingsChange,
};
use serde_json::{Value, json};

use super::{AskError, NodeArgs, exit, open};
use crate::config::Size;

const NS_HELP: &str = "\
Exit code: 0 done, 1 there is no such namespace (create: there is one), 2 an error.

  larder ns create users --ttl 7d --quota 10G
  larder ns set users --cache keys-only
  larder ns list
  larder ns drop users";

const CREATE_HELP: &str = "\
Exit code: 0 done, 1 there is a namespace of this name, 2 an error.

  larder ns create sessions --ttl 1h --max-ttl 1d --ttl-jitter 10";

const SET_HELP: &str = "\
Exit code: 0 done, 1 there is no such namespace, 2 an error.

  larder ns set sessions --quota 20G --compress-from 4K
  larder ns set default --ttl 1d     what memcached's clients store as well";

const LIST_HELP: &str = "\
A line is the number, the name, and what is not as usual.

Exit code: 0 done, 2 an error.

  larder ns list --json";

const DROP_HELP: &str = "\
`default` cannot be dropped.

Exit code: 0 done, 1 there is no such namespace, 2 an error.

  larder ns drop sessions";

/// `larder ns`.
#[derive(Args, Clone, Debug)]
#[command(after_help = NS_HELP)]
pub struct NamespaceArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// Make a namespace, and print its number
    #[command(after_help = CREATE_HELP)]
    Create(ChangeArgs),
    /// Change those settings of a namespace that are named
    #[command(after_help = SET_HELP)]
    Set(ChangeArgs),
    /// Print all namespaces and how they are
    #[command(after_help = LIST_HELP)]
    List(ListArgs),
    /// Delete a namespace with all that it has
    #[command(after_help = DROP_HELP)]
    Drop(DropArgs),
}

#[derive(Args, Clone, Debug)]
struct ChangeArgs {
    /// The namespace
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Args, Clone, Debug)]
struct ListArgs {
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Args, Clone, Debug)]
struct DropArgs {
    /// The namespace
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Args, Clone, Debug)]
struct SettingsArgs {
    /// How long items live that are stored without a time to live, as 90, 15m, 1h, 7d; 0 for ever
    #[arg(long, value_name = "TIME")]
    ttl: Option<Seconds>,
    /// How long items live at most; 0 for no limit
    #[arg(long, value_name = "TIME")]
    max_ttl: Option<Seconds>,
    /// By how many percent items live shorter at most, by chance
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    ttl_jitter: Option<u8>,
    /// The longest value; 0: as the node says
    #[arg(long, value_name = "SIZE")]
    max_value: Option<Size>,
    /// Items of a page at most; 0: as the node says
    #[arg(long, value_name = "N")]
    max_page_items: Option<u32>,
    /// Bytes of a page at most; 0: as the node says
    #[arg(long, value_name = "SIZE")]
    max_page_bytes: Option<Size>,
    /// When changes are answered
    #[arg(long, value_enum)]
    durability: Option<DurabilityArg>,
    /// What the node's caches keep
    #[arg(long, value_enum)]
    cache: Option<CacheArg>,
    /// Compress values of this size or more; `node`: as the node says; `off`: none
    #[arg(long, value_name = "SIZE|node|off")]
    compress_from: Option<CompressFrom>,
    /// What the namespace may take of the disk; 0 for no limit
    #[arg(long, value_name = "SIZE")]
    quota: Option<Size>,
    /// What a record may have, its item keys and values together; 0 for no limit
    #[arg(long, value_name = "SIZE")]
    max_record: Option<Size>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DurabilityArg {
    /// As the node's --durability says
    Node,
    /// When they are durable
    Sync,
    /// When they are made; a crash may take them back
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CacheArg {
    /// Values, and what leads to them
    Values,
    /// What leads to values
    KeysOnly,
    /// Nothing
    Bypass,
}

/// A time in seconds, with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seconds(u32);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no time: write seconds, or 90s, 15m, 1h, 7d");
        let (number, unit) = match text.char_indices().next_back() {
            Some((at, 's')) => (&text[..at], 1),
            Some((at, 'm')) => (&text[..at], 60),
            Some((at, 'h')) => (&text[..at], 3600),
            Some((at, 'd')) => (&text[..at], 86_400),
            _ => (text, 1),
        };
        let number: u32 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(unit).map(Self).ok_or_else(|| format!("{text:?} is over 136 years"))
    }
}

/// From which size on values are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CompressFrom(u32);

impl FromStr for CompressFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "node" => Ok(Self(0)),
            "off" => Ok(Self(COMPRESS_NEVER)),
            size => {
                let Size(bytes) = size.parse::<Size>()?;
                let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes < COMPRESS_NEVER);
                bytes.filter(|bytes| *bytes > 0).map(Self).ok_or_else(|| {
                    format!("{text:?} is no size of a value: say `off` to compress none")
                })
            }
        }
    }
}

impl SettingsArgs {
    fn change(&self) -> Result<SettingsChange, AskError> {
        let size = |option, size: Option<Size>| {
            let bytes = size.map(|Size(bytes)| u32::try_from(bytes));
            bytes.transpose().map_err(|_| AskError::OverFourGigabytes(option))
        };
        Ok(SettingsChange {
            ttl_default: self.ttl.map(|Seconds(seconds)| seconds),
            ttl_max: self.max_ttl.map(|Seconds(seconds)| seconds),
            ttl_jitter_percent: self.ttl_jitter,
            value_bytes_max: size("--max-value", self.max_value)?,
            page_items_max: self.max_page_items,
            page_bytes_max: size("--max-page-bytes", self.max_page_bytes)?,
            durability: self.durability.map(|durability| match durability {
                DurabilityArg::Node => NamespaceDurability::Node,
                DurabilityArg::Sync => NamespaceDurability::Sync,
                DurabilityArg::None => NamespaceDurability::None,
            }),
            cache: self.cache.map(|cache| match cache {
                CacheArg::Values => NamespaceCache::Values,
                CacheArg::KeysOnly => NamespaceCache::KeysOnly,
                CacheArg::Bypass => NamespaceCache::Bypass,
            }),
            compress_from: self.compress_from.map(|CompressFrom(bytes)| bytes),
            bytes_max: self.quota.map(|Size(bytes)| bytes),
            record_bytes_max: self.max_record.map(|Size(bytes)| bytes),
        })
    }
}

/// Makes, changes, lists or drops namespaces.
pub fn namespaces(args: &NamespaceArgs) -> ExitCode {
    exit(|| match &args.verb {
        Verb::Create(create) => {
            let settings = create.settings.change()?;
            let made = open(&create.node)?.create_namespace(&create.name, settings)?;
            shown(made.as_ref(), &create.node, |made| println(&made.number.to_string()))
                .inspect(|is_done| explain(*is_done, &create.name, "there already"))
        }
        Verb::Set(set) => {
            let settings = set.settings.change()?;
            let changed = open(&set.node)?.set_namespace(&set.name, settings)?;
            shown(changed.as_ref(), &set.node, |changed| println(&line(changed)))
                .inspect(|is_done| explain(*is_done, &set.name, "not there"))
        }
        Verb::List(list) => {
            for namespace in open(&list.node)?.namespaces()? {
                shown(Some(&namespace), &list.node, |namespace| println(&line(namespace)))?;
            }
            Ok(true)
        }
        Verb::Drop(drop) => {
            let is_done = open(&drop.node)?.drop_namespace(&drop.name)?;
            explain(is_done, &drop.name, "not there");
            Ok(is_done)
        }
    })
}

/// Prints a namespace, as JSON if that is asked for; whether there is one.
fn shown(
    namespace: Option<&NativeNamespace>,
    node: &NodeArgs,
    print: impl FnOnce(&NativeNamespace) -> io::Result<()>,
) -> Result<bool, AskError> {
    match namespace {
        Some(namespace) if node.json => println(&described(namespace).to_string())?,
        Some(namespace) => print(namespace)?,
        None => {}
    }
    Ok(namespace.is_some())
}

fn println(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

fn explain(is_done: bool, name: &str, reason: &str) {
    if !is_done {
        // There is nobody left to tell if this fails.
        let _ = writeln!(io::stderr(), "larder: namespace {name} is {reason}");
    }
}

/// A namespace in a line: its number, its name, and those settings that are not as usual.
fn line(namespace: &NativeNamespace) -> String {
    let NativeNamespace { name, number, .. } = namespace;
    let Value::Object(settings) = settings_of(&namespace.settings) else { return String::new() };
    let Value::Object(usual) = settings_of(&NamespaceSettings::default()) else {
        return String::new();
    };
    let mut line = format!("{number:>5}  {name}");
    for (setting, value) in settings.iter().filter(|(setting, value)| usual[*setting] != **value) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        line.push_str(&format!("  {setting}={value}"));
    }
    line
}

fn described(namespace: &NativeNamespace) -> Value {
    let NativeNamespace { name, number, settings } = namespace;
    json!({ "name": name, "number": number, "settings": settings_of(settings) })
}

fn settings_of(settings: &NamespaceSettings) -> Value {
    let durability = match settings.durability {
        NamespaceDurability::Node => "node",
        NamespaceDurability::Sync => "sync",
        NamespaceDurability::None => "none",
    };
    let cache = match settings.cache {
        NamespaceCache::Values => "values",
        NamespaceCache::KeysOnly => "keys-only",
        NamespaceCache::Bypass => "bypass",
    };
    let compress_from = match settings.compress_from {
        0 => json!("node"),
        COMPRESS_NEVER => json!("off"),
        bytes => json!(bytes),
    };
    json!({
        "ttl": settings.ttl_default,
        "max_ttl": settings.ttl_max,
        "ttl_jitter": settings.ttl_jitter_percent,
        "max_value": settings.value_bytes_max,
        "max_page_items": settings.page_items_max,
        "max_page_bytes": settings.page_bytes_max,
        "durability": durability,
        "cache": cache,
        "compress_from": compress_from,
        "quota": settings.bytes_max,
        "max_record": settings.record_bytes_max,
    })
}

/// Which namespace a command is about.
#[derive(Args, Clone, Debug)]
pub(super) struct WhichNamespace {
    /// The namespace's name or number
    #[arg(long, value_name = "N", default_value = "default")]
    namespace: String,
}

impl WhichNamespace {
    /// Its number. Only a name has to be asked for.
    pub(super) fn number(&self, node: &mut ClientConnection) -> Result<u32, AskError> {
        match self.namespace.as_str() {
            "default" => Ok(larder_engine::key::DEFAULT_NAMESPACE),
            name => match name.parse() {
                Ok(number) => Ok(number),
                Err(_) => match node.namespace(name)? {
                    Some(namespace) => Ok(namespace.number),
                    None => Err(AskError::NoNamespace(name.to_owned())),
                },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let seconds = |text: &str| text.parse::<Seconds>().ok().map(|Seconds(seconds)| seconds);
        for (text, expected) in [
            ("0", Some(0)),
            ("90", Some(90)),
            ("90s", Some(90)),
            ("15m", Some(900)),
            ("1h", Some(3600)),
            ("7d", Some(604_800)),
            ("", None),
            ("d", None),
            ("-1", None),
            ("1w", None),
            ("50000d", None),
            ("1\u{e9}", None),
        ] {
            assert_eq!(seconds(text), expected, "{text:?}");
        }
    }

    #[test]
    fn compression_begins_at_a_size_or_never() {
        let from = |text: &str| text.parse::<CompressFrom>().ok().map(|CompressFrom(from)| from);
        assert_eq!((from("node"), from("off")), (Some(0), Some(COMPRESS_NEVER)));
        assert_eq!((from("4K"), from("0"), from("4G"), from("x")), (Some(4096), None, None, None));
    }

    #[test]
    fn a_line_says_what_is_not_as_usual() {
        let settings = NamespaceSettings {
            ttl_default: 60,
            cache: NamespaceCache::Bypass,
            ..NamespaceSettings::default()
        };
        let namespace = NativeNamespace { name: "users".to_owned(), number: 3, settings };
        assert_eq!(line(&namespace), "    3  users  cache=bypass  ttl=60");
    }
}
