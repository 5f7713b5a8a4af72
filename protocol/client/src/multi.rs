//! Reads of several items at once.

use larder_protocol::native::{
    ItemKey, MULTI_GET_KEYS_MAX, MultiEntry, MultiGet, NativeRequest, NativeStatus,
};

use crate::connection::{Arrived, ClientConnection, Item};
use crate::error::ClientError;
use crate::key::ItemRef;

/// What became of the read of one of several items: the item, `None` if there is none, or why it
/// could not be read.
pub type ItemRead = Result<Option<Item>, ClientError>;

impl ClientConnection {
    /// Reads items of one namespace, of any records, in one request for each 1,024 keys. What has
    /// no room in a reply is asked for again. The answers are in the order of the keys; that one
    /// item cannot be read says nothing of the others.
    ///
    /// # Errors
    /// Any that concerns all items; [`ClientError::Usage`] if the keys are of several namespaces.
    pub fn multi_get(&mut self, keys: &[ItemRef<'_>]) -> Result<Vec<ItemRead>, ClientError> {
        if keys.windows(2).any(|pair| pair[0].wire.namespace != pair[1].wire.namespace) {
            return Err(ClientError::Usage("all keys are of one namespace".to_owned()));
        }
        let mut reads: Vec<Option<ItemRead>> = keys.iter().map(|_| None).collect();
        let mut missing: Vec<usize> = (0..keys.len()).collect();
        while !missing.is_empty() {
            let asked: Vec<usize> = missing.iter().copied().take(MULTI_GET_KEYS_MAX).collect();
            let wire: Vec<ItemKey<'_>> = asked.iter().map(|at| keys[*at].wire).collect();
            let answered = self.multi_get_once(&wire)?;
            // A node that has room for nothing is asked no more.
            let has_any = answered.iter().any(|read| !is_left_out(read));
            for (at, read) in asked.into_iter().zip(answered) {
                if !(has_any && is_left_out(&read)) {
                    reads[at] = Some(read);
                }
            }
            missing.retain(|at| reads[*at].is_none());
        }
        Ok(reads.into_iter().flatten().collect())
    }

    fn multi_get_once(&mut self, keys: &[ItemKey<'_>]) -> Result<Vec<ItemRead>, ClientError> {
        let body = MultiGet::body(keys, false, false);
        let request = MultiGet::read(&body).expect("each key was checked when it was made");
        let reads = self.call(&NativeRequest::MultiGet(request))?.reads(keys.len());
        self.judge(reads)
    }
}

impl Arrived {
    /// The answers to a read of `count` items.
    pub(crate) fn reads(self, count: usize) -> Result<Vec<ItemRead>, ClientError> {
        let arrived = self.ok(&[])?;
        let entries = arrived.as_reply().multi(count).map_err(|_| arrived.foreign())?;
        let read = |entry: &MultiEntry<'_>| match entry {
            Ok(item) => Ok(Some(Item::of(item))),
            Err(Some(NativeStatus::Absent)) => Ok(None),
            Err(status) => Err(ClientError::refused(*status, &[])),
        };
        Ok(entries.iter().map(read).collect())
    }
}

/// Whether an item had no room in a reply.
pub(crate) fn is_left_out(read: &ItemRead) -> bool {
    matches!(read, Err(ClientError::Refused { status: Some(NativeStatus::Busy), .. }))
}
