//! `larder del`: an item, a range of a record's items, or all of them.

use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use larder_client::ItemRange;

use super::list::RangeArgs;
use super::print::Printer;
use super::{AskError, ItemArgs, NodeArgs, exit, open};

const DEL_HELP: &str = "\
Without a range, one item is deleted: that with the key ITEM, or that without a key. A range
costs the same however many items it has; nobody counts them, and it may have none.

Exit code: 0 done, 1 there is no such item (never of a range), 2 an error.

  larder del user:1 photo
  larder del log --to 2026-01-01
  larder del user:1 --all";

/// `larder del`.
#[derive(Args, Clone, Debug)]
#[command(after_help = DEL_HELP)]
#[command(group(
    ArgGroup::new("one").arg("item").conflicts_with_all(["prefix", "from", "to", "all"])
))]
pub struct DelArgs {
    #[command(flatten)]
    key: ItemArgs,
    #[command(flatten)]
    range: RangeArgs,
    /// All items of the record
    #[arg(long, conflicts_with_all = ["prefix", "from", "to"])]
    all: bool,
    #[command(flatten)]
    node: NodeArgs,
}

impl DelArgs {
    /// The range that is deleted; `None` for one item. A whole record has a word of its own: so a
    /// script whose variable is empty does not delete one.
    fn range(&self) -> Result<Option<ItemRange<'_>>, AskError> {
        match self.range.named() {
            _ if self.all => Ok(Some(ItemRange::Prefix(b""))),
            Some(ItemRange::Prefix(b"")) => Err(AskError::EveryItem("an empty --prefix")),
            Some(ItemRange::Between { from: Some(b""), to: None }) => {
                Err(AskError::EveryItem("an empty --from"))
            }
            range => Ok(range),
        }
    }
}

/// Deletes an item, or a range of a record's items.
pub fn del(args: &DelArgs) -> ExitCode {
    exit(|| {
        let range = args.range()?;
        let mut node = open(&args.node)?;
        let key = args.key.key(&mut node)?;
        let is_done = match range {
            None => node.delete(key)?,
            Some(range) => {
                let namespace = args.key.namespace.number(&mut node)?;
                node.delete_items(namespace, args.key.record.as_bytes(), range)?;
                true
            }
        };
        Printer::new(&args.node).deleted(is_done)?;
        Ok(is_done)
    })
}
