//! Some keys of a table, kept in memory: whoever wants to know how much of one table's keys another
//! one has asks the filters for these.

use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::block::{Block, BlockCursor};
use super::error::{Malformed, TableError};
use super::format::padded;
use super::reader::{ReadBlock, Table};

/// How many blocks keys are taken from, and how many at most from each.
const BLOCKS: usize = 2;
const KEYS_PER_BLOCK: usize = 32;

/// Keys of a table.
pub(super) type Sample = Rc<[Box<[u8]>]>;

impl<E: Env> Table<E> {
    /// Takes keys out of a few blocks, with one read for each, charged to `class`. A block that
    /// cannot be read gives none: whoever needs it will say so.
    pub(super) async fn take_sample(&mut self, class: IoClass) {
        let blocks = self.index().len();
        let mut keys = Vec::new();
        for part in 0..BLOCKS.min(blocks) {
            // From the middle of each part of the table.
            let number = (2 * part + 1) * blocks / (2 * BLOCKS.min(blocks));
            let _unreadable = self.sample_block(number, class, &mut keys).await;
        }
        self.sample = keys.into();
    }

    async fn sample_block(
        &self,
        number: usize,
        class: IoClass,
        keys: &mut Vec<Box<[u8]>>,
    ) -> Result<(), TableError> {
        let handle = self.index().block(number);
        let buffer = self.read(handle.offset, padded(u64::from(handle.length)), class).await?;
        let section = self.verify_block(&ReadBlock { number, bytes: &buffer })?;
        let walk = |keys: &mut Vec<Box<[u8]>>| -> Result<(), Malformed> {
            let block = Block::parse(section)?;
            let mut cursor = BlockCursor::default();
            cursor.enter_block();
            let step = (section.count as usize).div_ceil(KEYS_PER_BLOCK).max(1);
            let mut at = 0;
            while cursor.advance(&block)? {
                if at % step == 0 {
                    keys.push(cursor.key().into());
                }
                at += 1;
            }
            Ok(())
        };
        walk(keys).map_err(self.damaged(handle.offset))
    }
}
