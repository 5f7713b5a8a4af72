//! Some keys of a table: whoever wants to know how much of one table's keys others have asks their
//! filters for these.

use larder_runtime::env::{Env, IoClass};

use super::block::{Block, BlockCursor};
use super::error::{Malformed, TableError};
use super::format::padded;
use super::reader::{ReadBlock, Table};

/// How many blocks keys are taken from.
const BLOCKS: usize = 8;

impl<E: Env> Table<E> {
    /// The keys of a few blocks, with one read for each, charged to `class`. A block that cannot be
    /// read gives none: whoever needs it will say so.
    pub async fn sample(&self, class: IoClass) -> Vec<Vec<u8>> {
        let blocks = self.index().len();
        let parts = BLOCKS.min(blocks);
        let mut keys = Vec::new();
        for part in 0..parts {
            // From the middle of each part of the table.
            let number = (2 * part + 1) * blocks / (2 * parts);
            let _unreadable = self.sample_block(number, class, &mut keys).await;
        }
        keys
    }

    async fn sample_block(
        &self,
        number: usize,
        class: IoClass,
        keys: &mut Vec<Vec<u8>>,
    ) -> Result<(), TableError> {
        let handle = self.index().block(number);
        let buffer = self.read(handle.offset, padded(u64::from(handle.length)), class).await?;
        let section = self.verify_block(&ReadBlock { number, bytes: &buffer })?;
        let walk = |keys: &mut Vec<Vec<u8>>| -> Result<(), Malformed> {
            let block = Block::parse(section)?;
            let mut cursor = BlockCursor::default();
            cursor.enter_block();
            while cursor.advance(&block)? {
                keys.push(cursor.key().to_vec());
            }
            Ok(())
        };
        walk(keys).map_err(self.damaged(handle.offset))
    }
}
