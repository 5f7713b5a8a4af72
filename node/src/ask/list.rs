//! `larder items` and `larder scan`: the items of a running node, in lines.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::Args;
use larder_client::{ItemRange, Items, ItemsOf, PageLimits};

use super::print::listed;
use super::progress::ProgressArgs;
use super::{AskError, NodeArgs, WhichNamespace, exit, open};

const ITEMS_HELP: &str = "\
A line is KEY<TAB>VALUE, or KEY alone with --keys-only. Keys and values come byte for byte: with
--json a line is one item whatever its bytes are.

Exit code: 0 there are items, 1 there are none, 2 an error.

  larder items user:1 --prefix photo: --keys-only
  larder items log --reverse --limit 10";

/// `larder items`.
#[derive(Args, Clone, Debug)]
#[command(after_help = ITEMS_HELP)]
pub struct ItemsArgs {
    /// The record's id
    #[arg(value_name = "RECORD")]
    record: OsString,
    #[command(flatten)]
    range: RangeArgs,
    /// The greatest key first
    #[arg(long)]
    reverse: bool,
    #[command(flatten)]
    shape: ShapeArgs,
}

/// A range of a record's items.
#[derive(Args, Clone, Debug)]
pub(super) struct RangeArgs {
    /// Only items whose keys begin so
    #[arg(long, value_name = "P", conflicts_with_all = ["from", "to"])]
    prefix: Option<OsString>,
    /// Only items from this key on
    #[arg(long, value_name = "A")]
    from: Option<OsString>,
    /// Only items below this key
    #[arg(long, value_name = "B")]
    to: Option<OsString>,
}

const SCAN_HELP: &str = "\
A line is RECORD<TAB>KEY<TAB>VALUE, or RECORD<TAB>KEY with --keys-only, in no order that means
anything. The key of a memcached item is empty. All come byte for byte: with --json a line is one
item whatever its bytes are.

Exit code: 0 there are items, 1 there are none, 2 an error.

  larder scan --namespace sessions --keys-only > keys
  larder scan --json --limit 100";

/// `larder scan`.
#[derive(Args, Clone, Debug)]
#[command(after_help = SCAN_HELP)]
pub struct ScanArgs {
    /// The same from the other end
    #[arg(long)]
    reverse: bool,
    #[command(flatten)]
    shape: ShapeArgs,
}

/// How much is listed, and how.
#[derive(Args, Clone, Debug)]
struct ShapeArgs {
    #[command(flatten)]
    namespace: WhichNamespace,
    /// No more than so many items
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    node: NodeArgs,
}

impl ShapeArgs {
    /// The limits of a page.
    fn limits(&self) -> PageLimits {
        let items_max = self.limit.map_or(0, |limit| u32::try_from(limit).unwrap_or(u32::MAX));
        PageLimits { items_max, keys_only: self.keys_only, ..PageLimits::default() }
    }
}

impl RangeArgs {
    /// The range; `None` if none is named.
    pub(super) fn named(&self) -> Option<ItemRange<'_>> {
        let [prefix, from, to] = [&self.prefix, &self.from, &self.to]
            .map(|bytes| bytes.as_ref().map(|bytes| bytes.as_bytes()));
        match prefix {
            Some(prefix) => Some(ItemRange::Prefix(prefix)),
            None if from.is_none() && to.is_none() => None,
            None => Some(ItemRange::Between { from, to }),
        }
    }
}

/// Prints the items of a record.
pub fn items(args: &ItemsArgs) -> ExitCode {
    exit(|| {
        let mut node = open(&args.shape.node)?;
        let namespace = args.shape.namespace.number(&mut node)?;
        let of = ItemsOf::record(namespace, args.record.as_bytes())?;
        let of = of
            .range(args.range.named().unwrap_or(ItemRange::Prefix(b"")))?
            .limits(args.shape.limits());
        let of = if args.reverse { of.descending() } else { of };
        print(&args.shape, node.items(of))
    })
}

/// Prints the items of a namespace.
pub fn scan(args: &ScanArgs) -> ExitCode {
    let ScanArgs { reverse, shape } = args;
    exit(|| {
        let (mut node, limits) = (open(&shape.node)?, shape.limits());
        let namespace = shape.namespace.number(&mut node)?;
        let items = if *reverse {
            node.scan_in_reverse(namespace, limits)
        } else {
            node.scan(namespace, limits)
        };
        print(shape, items)
    })
}

/// Prints as many items as are asked for; whether there are any.
fn print(shape: &ShapeArgs, items: Items<'_>) -> Result<bool, AskError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let most = shape.limit.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    let progress = shape.progress.of_items(shape.node.json);
    let mut has_any = false;
    for item in items.take(most) {
        listed(&mut out, &item?, shape.node.json)?;
        has_any = true;
        progress.add(1);
    }
    out.flush()?;
    Ok(has_any)
}
