//! `larder get`, `set`, `del`, `incr`, `items`, `scan`, `ns`, `stats` and `ping`: a running node
//! asked from the command line.

mod del;
mod list;
mod namespaces;
mod print;
mod progress;
mod stats;
mod values;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use larder_client::{ClientConnection, ClientError, ItemRef, Stored, When};

pub use del::{DelArgs, del};
pub use list::{ItemsArgs, ScanArgs, items, scan};
use namespaces::WhichNamespace;
pub use namespaces::{NamespaceArgs, namespaces};
use print::Printer;
use progress::ProgressArgs;
pub use stats::{StatsArgs, stats};

/// The exit code where there is no such item, or a condition does not hold.
const EXIT_ABSENT: u8 = 1;

/// The exit code where nothing could be found out or done.
const EXIT_FAILED: u8 = 2;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which node, and how its answers are shown.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// The node's native port, as HOST:PORT
    #[arg(long, value_name = "HOST:PORT", env = "LARDER_NODE", default_value = "127.0.0.1:9411")]
    pub node: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Which item.
#[derive(Args, Clone, Debug)]
pub struct ItemArgs {
    /// The record's id
    #[arg(value_name = "RECORD")]
    pub record: OsString,
    /// The item's key in the record; the record of a memcached key has one without a key
    #[arg(value_name = "ITEM", default_value = "", hide_default_value = true)]
    pub item: OsString,
    #[command(flatten)]
    namespace: WhichNamespace,
}

impl ItemArgs {
    fn key(&self, node: &mut ClientConnection) -> Result<ItemRef<'_>, AskError> {
        let namespace = self.namespace.number(node)?;
        Ok(ItemRef::new(namespace, self.record.as_bytes(), self.item.as_bytes())?)
    }
}

const GET_HELP: &str = "\
Exit code: 0 done, 1 there is no such item, 2 an error.

  larder get user:1 > value";

/// `larder get`.
#[derive(Args, Clone, Debug)]
#[command(after_help = GET_HELP)]
pub struct GetArgs {
    #[command(flatten)]
    key: ItemArgs,
    #[command(flatten)]
    node: NodeArgs,
}

const SET_HELP: &str = "\
Exit code: 0 stored, 1 a condition did not hold, 2 an error.

  larder set user:1 --value Ada
  larder set user:1 photo --ttl 3600 < photo.jpg";

/// `larder set`.
#[derive(Args, Clone, Debug)]
#[command(after_help = SET_HELP)]
pub struct SetArgs {
    #[command(flatten)]
    key: ItemArgs,
    /// The value [default: what comes from standard input]
    #[arg(long, value_name = "V", conflicts_with = "file")]
    value: Option<OsString>,
    /// The value is what this file holds
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Seconds to live; 0 for ever
    #[arg(long, value_name = "S", default_value_t = 0)]
    ttl: u32,
    /// Only if there is no item
    #[arg(long, group = "condition")]
    if_absent: bool,
    /// Only if there is one
    #[arg(long, group = "condition")]
    if_present: bool,
    /// Only if the item has this version
    #[arg(long, value_name = "N", group = "condition")]
    if_version: Option<u64>,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    node: NodeArgs,
}

impl SetArgs {
    fn when(&self) -> When<'_> {
        match self.if_version {
            Some(version) => When::Version(version),
            None if self.if_absent => When::Absent,
            None if self.if_present => When::Present,
            None => When::Always,
        }
    }
}

const INCR_HELP: &str = "\
Exit code: 0 done, 1 there is no such item, 2 an error.

  larder incr visits --by 10 --initial 0";

/// `larder incr`.
#[derive(Args, Clone, Debug)]
#[command(after_help = INCR_HELP)]
pub struct IncrArgs {
    #[command(flatten)]
    key: ItemArgs,
    /// By how much; a negative number goes down, to no less than 0
    #[arg(long, value_name = "N", default_value_t = 1, allow_hyphen_values = true)]
    by: i64,
    /// Store this number if there is no item
    #[arg(long, value_name = "N")]
    initial: Option<u64>,
    #[command(flatten)]
    node: NodeArgs,
}

const PING_HELP: &str = "\
Exit code: 0 the node answers, 2 it does not.

  larder ping --node 10.0.0.7:9411";

/// `larder ping`.
#[derive(Args, Clone, Debug)]
#[command(after_help = PING_HELP)]
pub struct PingArgs {
    #[command(flatten)]
    node: NodeArgs,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(
        "cannot connect to {node}: {source}; is the node running, and is this its --native-port? \
         --node, or LARDER_NODE, says which node is asked"
    )]
    Connect { node: String, source: io::Error },
    #[error("{0}")]
    Client(ClientError),
    #[error("cannot read {what}: {source}")]
    Input { what: String, source: io::Error },
    #[error("{0} is every item of the record; say --all if that is meant")]
    EveryItem(&'static str),
    #[error("there is no namespace {0}, which --namespace names; `larder ns list` shows them")]
    NoNamespace(String),
    #[error("{0} is at most 4G")]
    OverFourGigabytes(&'static str),
    #[error("the value has more than {0} bytes, the most that --max-item-size of a node can be")]
    TooLong(u64),
    #[error("a value of {0} bytes comes in chunks, and this node takes none: it is an older one")]
    NoChunks(u64),
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl From<ClientError> for AskError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Connect { node, source } => Self::Connect { node, source },
            other => Self::Client(other),
        }
    }
}

/// Prints an item's value, byte for byte.
pub fn get(args: &GetArgs) -> ExitCode {
    exit(|| {
        let mut node = open(&args.node)?;
        let key = args.key.key(&mut node)?;
        let value = node.get_large(key)?;
        let is_there = value.is_some();
        values::show(&Printer::new(&args.node), value)?;
        Ok(is_there)
    })
}

/// Stores a value.
pub fn set(args: &SetArgs) -> ExitCode {
    exit(|| {
        let value = values::Given::of(args)?;
        let mut node = open(&args.node)?;
        let key = args.key.key(&mut node)?;
        let stored = value.store(&mut node, key, args)?;
        Printer::new(&args.node).stored(stored)?;
        Ok(matches!(stored, Stored::Yes(_)))
    })
}

/// Changes a number and prints it.
pub fn incr(args: &IncrArgs) -> ExitCode {
    exit(|| {
        let mut node = open(&args.node)?;
        let key = args.key.key(&mut node)?;
        let number = node.increment(key, args.by, args.initial)?;
        Printer::new(&args.node).number(number)?;
        Ok(number.is_some())
    })
}

/// Asks a node for a sign of life, and says what it is.
pub fn ping(args: &PingArgs) -> ExitCode {
    exit(|| {
        let mut node = open(&args.node)?;
        node.ping()?;
        let hello = node.hello("larder ping")?;
        Printer::new(&args.node).hello(&hello)?;
        Ok(true)
    })
}

fn open(args: &NodeArgs) -> Result<ClientConnection, AskError> {
    Ok(ClientConnection::open(&args.node, PATIENCE)?)
}

fn exit(ask: impl FnOnce() -> Result<bool, AskError>) -> ExitCode {
    match ask() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_ABSENT),
        Err(error) => {
            // There is nobody left to tell if this fails too.
            let _ = writeln!(io::stderr(), "larder: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}
