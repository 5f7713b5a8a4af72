//! Large values: stored and read in chunks, whole or not at all.
//!
//! A large value is what its item has in place of one, a [`LargeValue`], and its chunks, which are
//! items of a reserved namespace on the same shard. An upload stands there as well: whose it is,
//! and whether it was committed. Chunks come one by one, and are nobody's until the commit, which
//! changes the item and the upload in one batch; so after a crash the value is there whole, or not
//! at all, and nothing has to be copied.
//!
//! What happens to an item (it is replaced, deleted, expires, goes with a range, a namespace or a
//! flush) asks nothing of its chunks. A task looks at all uploads in turn, and deletes the chunks
//! of those to which their item does not refer any more; see [`sweep`].

mod known;
mod sweep;
mod upload;

use std::rc::Rc;

use larder_runtime::env::Env;

use super::answer::AnswerBuf;
use super::batch::{BatchAnswer, BatchStep, ItemBatch};
use super::operation_buffer::OperationBuf;
use super::turns::Turn;
use super::{NotApplied, Shard};
use crate::error::EngineError;
use crate::key::{Key, RESERVED_NAMESPACES, display};
use crate::large::{LargeAnswer, LargeRefusal, LargeRequest, LargeStep, LargeValue};
use crate::operation::{Delete, Operation, Outcome, Read, Store, StoreMode};
use crate::scan::Scan;
use known::UPLOAD_BYTES;
pub(super) use known::Uploads;
use upload::{Stage, Upload};

/// The namespace of uploads and chunks.
const LARGE_NAMESPACE: u32 = *RESERVED_NAMESPACES.end() - 2;

const UPLOADS: &[u8] = b"uploads";
const CHUNKS: &[u8] = b"chunks";

/// A step's answer, and how far the log has to be acknowledged before it may be given.
type Told = Result<(LargeAnswer, u64), EngineError>;

/// The key of the item that an upload is.
fn upload_item(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// The item key of a chunk.
fn chunk_item(number: u64, index: u32) -> [u8; 12] {
    let mut item = [0; 12];
    item[..8].copy_from_slice(&number.to_be_bytes());
    item[8..].copy_from_slice(&index.to_be_bytes());
    item
}

fn key_in<'a>(record: &'a [u8], item: &'a [u8]) -> Key<'a> {
    Key { namespace: LARGE_NAMESPACE, record, item }
}

fn target_of(request: &LargeRequest) -> Key<'_> {
    let LargeRequest { namespace, record, item, .. } = request;
    Key { namespace: *namespace, record, item }
}

fn refused(refusal: LargeRefusal) -> LargeAnswer {
    LargeAnswer::Refused(refusal)
}

fn read() -> OperationBuf {
    OperationBuf::new(&Operation::Read(Read { value: true, quiet: true, ..Read::default() }))
}

impl<E: Env> Shard<E> {
    /// Does a step on the way of a large value, or refuses it; waits for whatever it takes.
    ///
    /// Returns what became of it, and how far the log has to be acknowledged before that may be
    /// told. A commit that comes again is answered as the first one, as long as the item has its
    /// value.
    ///
    /// Memory: a chunk, twice while it is stored or read.
    ///
    /// # Errors
    ///
    /// [`EngineError`] as for [`Shard::execute`]; nothing was done then.
    pub async fn large(
        self: &Rc<Self>,
        request: &LargeRequest,
    ) -> Result<(LargeAnswer, u64), EngineError> {
        match &request.step {
            LargeStep::Stage { len } => self.stage(request, *len).await,
            LargeStep::PutChunk { upload, index, bytes } => {
                self.put_chunk(request, (*upload, *index), bytes).await
            }
            LargeStep::Commit { upload, store } => self.commit(request, *upload, store).await,
            LargeStep::Abort { upload } => self.abort(request, *upload).await,
            LargeStep::GetChunk { upload, index } => {
                self.get_chunk(request, (*upload, *index)).await
            }
        }
    }

    async fn stage(self: &Rc<Self>, request: &LargeRequest, len: u32) -> Told {
        let LargeRequest { namespace, record, item, .. } = request;
        let options = self.options.large;
        let chunk_bytes = options.chunk_bytes_max.min(self.options.value_bytes_max);
        let chunk_bytes = u32::try_from(chunk_bytes).unwrap_or(u32::MAX).max(1);
        let mut from = 0;
        loop {
            self.apply_due_flush().await?;
            let sequence = self.log.sequence_next();
            let number = self.state.borrow().uploads.free_number(sequence.max(from));
            let upload = Upload {
                namespace: *namespace,
                record: record.clone(),
                item: item.clone(),
                stage: Stage::Staged,
                until: self.unix_now().saturating_add(options.staging_seconds),
                large: LargeValue { upload: number, len, chunk_bytes },
            };
            if let Some(refusal) = self.admit(request, number, &upload)? {
                return Ok((refused(refusal), 0));
            }
            let encoded = upload.encode();
            let add = OperationBuf::new(&Operation::Store(Store::plain(StoreMode::Add, &encoded)));
            let stored = self.execute(&key_in(UPLOADS, &upload_item(number)), add).await;
            if let Ok((answer, needs)) = &stored
                && answer.as_answer().outcome == Outcome::Stored
            {
                return Ok((LargeAnswer::Staged(upload.large), *needs));
            }
            self.state.borrow_mut().uploads.remove(number, &upload);
            stored?;
            // Another upload has this number.
            from = number + 1;
            self.env.yield_if_needed().await;
        }
    }

    /// Counts an upload that is about to begin, or says why it must not.
    fn admit(
        &self,
        request: &LargeRequest,
        number: u64,
        upload: &Upload,
    ) -> Result<Option<LargeRefusal>, EngineError> {
        let mut key = Vec::new();
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        state.encode_key(&target_of(request), &mut key);
        let failed = |refused| match refused {
            NotApplied::Failed(error) => error,
            NotApplied::Wait | NotApplied::LookAgain | NotApplied::Uncounted(_) => {
                EngineError::Full
            }
        };
        self.check_namespace(state, &key).map_err(failed)?;
        let len = upload.large.len;
        let longest = self.options.large.len_max();
        let len_max = state.namespaces.value_bytes_max(&key, longest as usize);
        if len == 0 || len as usize > len_max {
            return Ok(Some(LargeRefusal::Length));
        }
        let who = (upload.namespace, request.client);
        if !state.uploads.has_room(who, len.into(), &self.options.large) {
            return Ok(Some(LargeRefusal::TooManyStaged));
        }
        let counted = len as usize + UPLOAD_BYTES as usize;
        self.check_quota(state, &key, counted).map_err(failed)?;
        state.uploads.begin(number, upload, (request.client, self.unix_now()));
        Ok(None)
    }

    async fn put_chunk(
        self: &Rc<Self>,
        request: &LargeRequest,
        (number, index): (u64, u32),
        bytes: &[u8],
    ) -> Told {
        let _turn = self.turn_on(number).await;
        let (upload, needs) = self.upload(number).await?;
        let Some(upload) = upload.filter(|upload| self.is_waiting(number, upload, request)) else {
            return Ok((refused(LargeRefusal::NoUpload), needs));
        };
        let is_known = self.state.borrow().namespaces.takes(upload.namespace);
        if !is_known {
            return Err(EngineError::NoNamespace(upload.namespace));
        }
        if upload.large.chunk_len(index).map(|len| len as usize) != Some(bytes.len()) {
            return Ok((refused(LargeRefusal::WrongChunk), needs));
        }
        let put = OperationBuf::new(&Operation::Store(Store::plain(StoreMode::Set, bytes)));
        let item = chunk_item(number, index);
        // A chunk is compressed if a value of its namespace is.
        let stored = self.execute_for(upload.namespace, &key_in(CHUNKS, &item), put);
        let (answer, needs) = stored.await?;
        match answer.as_answer().outcome {
            Outcome::Stored => {}
            // It was begun before a start that has lowered the limit of values: begun anew, it has
            // shorter chunks.
            Outcome::TooLarge => return Ok((refused(LargeRefusal::NoUpload), needs)),
            other => unreachable!("a chunk is stored in any case: {other:?}"),
        }
        self.state.borrow_mut().uploads.note_chunk(number);
        Ok((LargeAnswer::Done, needs))
    }

    /// Whether an upload is for the item of the request, waits for its commit, and has time.
    fn is_waiting(&self, number: u64, upload: &Upload, request: &LargeRequest) -> bool {
        let now = self.unix_now();
        let is_overdue =
            || self.state.borrow().uploads.is_overdue(number, now, &self.options.large);
        upload.is_staged(request, now) && !is_overdue()
    }

    async fn commit(
        self: &Rc<Self>,
        request: &LargeRequest,
        number: u64,
        store_of_item: &OperationBuf,
    ) -> Told {
        let _turn = self.turn_on(number).await;
        let (upload, needs) = self.upload(number).await?;
        let Some(upload) = upload.filter(|upload| upload.is_of(request)) else {
            return Ok((refused(LargeRefusal::NoUpload), needs));
        };
        if upload.stage == Stage::Committed {
            return self.committed_before(request, number).await;
        }
        if !self.is_waiting(number, &upload, request) {
            return Ok((refused(LargeRefusal::NoUpload), needs));
        }
        if let Some(index) = self.missing_chunk(&upload.large).await? {
            return Ok((refused(LargeRefusal::Missing(index)), needs));
        }
        let batch = batch_of(request, &upload, store_of_item);
        let (done, needs) = self.execute_batch(batch).await?;
        Ok(match done {
            BatchAnswer::Done(answers) => {
                self.state.borrow_mut().uploads.commit(number);
                (LargeAnswer::Committed(version_of(&answers)), needs)
            }
            BatchAnswer::Refused { answer, .. } => {
                (refused(LargeRefusal::Condition(answer.as_answer().outcome)), needs)
            }
            BatchAnswer::OtherRequest => unreachable!("the batch has no token"),
        })
    }

    /// What a commit is told that comes again.
    async fn committed_before(self: &Rc<Self>, request: &LargeRequest, number: u64) -> Told {
        let (answer, needs) = self.execute(&target_of(request), read()).await?;
        let answer = answer.as_answer();
        let told = match refers_to(&answer, number) {
            Some(_) => LargeAnswer::Committed(answer.metadata.version),
            None => refused(LargeRefusal::Changed),
        };
        Ok((told, needs))
    }

    async fn abort(self: &Rc<Self>, request: &LargeRequest, number: u64) -> Told {
        let _turn = self.turn_on(number).await;
        let (upload, needs) = self.upload(number).await?;
        match upload.filter(|upload| upload.is_staged(request, 0)) {
            Some(upload) => Ok((LargeAnswer::Done, self.collect_chunks(number, &upload).await?)),
            None => Ok((refused(LargeRefusal::NoUpload), needs)),
        }
    }

    async fn get_chunk(
        self: &Rc<Self>,
        request: &LargeRequest,
        (number, index): (u64, u32),
    ) -> Told {
        let target = target_of(request);
        let (answer, needs) = self.execute(&target, read()).await?;
        let Some(large) = refers_to(&answer.as_answer(), number) else {
            return Ok((refused(LargeRefusal::Changed), needs));
        };
        let Some(len) = large.chunk_len(index) else {
            return Ok((refused(LargeRefusal::WrongChunk), needs));
        };
        let (chunk, _) = self.execute(&key_in(CHUNKS, &chunk_item(number, index)), read()).await?;
        let (found, bytes) = chunk.into_parts();
        if found.outcome == Outcome::Hit && bytes.len() == len as usize {
            return Ok((LargeAnswer::Chunk(bytes), needs));
        }
        // It may have been collected since the item was looked at.
        let (answer, needs) = self.execute(&target, read()).await?;
        if refers_to(&answer.as_answer(), number).is_none() {
            return Ok((refused(LargeRefusal::Changed), needs));
        }
        let reason = format!("chunk {index} of the large value is not there");
        Err(EngineError::Damaged { key: display(&target.encode()), reason })
    }

    /// Waits for the turn on an upload. All that changes it, or its chunks, holds that, and takes
    /// the turns on keys within it.
    async fn turn_on(&self, number: u64) -> Turn {
        let turn = self.upload_turns.enter(number);
        turn.come().await;
        turn
    }

    /// The upload with this number, and the log position that covers what was found.
    async fn upload(self: &Rc<Self>, number: u64) -> Result<(Option<Upload>, u64), EngineError> {
        let item = upload_item(number);
        let key = key_in(UPLOADS, &item);
        let (answer, needs) = self.execute(&key, read()).await?;
        let answer = answer.as_answer();
        if answer.outcome != Outcome::Hit {
            return Ok((None, needs));
        }
        match Upload::decode(number, answer.value) {
            Some(upload) => Ok((Some(upload), needs)),
            None => Err(EngineError::Damaged {
                key: display(&key.encode()),
                reason: "it is no upload of a large value".to_owned(),
            }),
        }
    }

    /// The first chunk that is not there. The turn on the upload is held.
    async fn missing_chunk(
        self: &Rc<Self>,
        large: &LargeValue,
    ) -> Result<Option<u32>, EngineError> {
        let mut scan = chunks_of(large.upload);
        scan.keys_only = true;
        let mut index = 0;
        loop {
            let page = self.scan(scan.clone()).await?;
            for found in &page.items {
                let len = large.chunk_len(index).map(|len| len as usize);
                if found.item != chunk_item(large.upload, index) || len != Some(found.value_len) {
                    return Ok(Some(index));
                }
                index += 1;
            }
            match page.next {
                Some(place) => scan = scan.after(&place),
                None => return Ok((index < large.chunks()).then_some(index)),
            }
        }
    }

    /// Deletes an upload and its chunks, whose turn is held. Returns the log position that covers
    /// that.
    async fn collect_chunks(
        self: &Rc<Self>,
        number: u64,
        upload: &Upload,
    ) -> Result<u64, EngineError> {
        // The upload is the last to go: a crash in between leaves something to begin with.
        self.delete_range(&chunks_of(number)).await?;
        let delete = OperationBuf::new(&Operation::Delete(Delete::default()));
        let (_, needs) = self.execute(&key_in(UPLOADS, &upload_item(number)), delete).await?;
        self.state.borrow_mut().uploads.remove(number, upload);
        Ok(needs)
    }
}

/// The chunks of an upload.
fn chunks_of(number: u64) -> Scan {
    Scan::of_items(LARGE_NAMESPACE, CHUNKS, &upload_item(number))
}

/// The change of the item and of its upload that a commit is.
fn batch_of(request: &LargeRequest, upload: &Upload, store_of_item: &OperationBuf) -> ItemBatch {
    let descriptor = upload.large.encode();
    let Operation::Store(asked) = store_of_item.as_operation() else {
        panic!("a large value is stored: {store_of_item:?}");
    };
    let of_item = Store { value: &descriptor, is_large: true, ..asked };
    let committed = Upload { stage: Stage::Committed, ..upload.clone() }.encode();
    let of_upload = Store::plain(StoreMode::Set, &committed);
    let steps = vec![
        BatchStep {
            namespace: request.namespace,
            record: request.record.clone(),
            item: request.item.clone(),
            operation: OperationBuf::new(&Operation::Store(of_item)),
        },
        BatchStep {
            namespace: LARGE_NAMESPACE,
            record: UPLOADS.to_vec(),
            item: upload_item(upload.large.upload).to_vec(),
            operation: OperationBuf::new(&Operation::Store(of_upload)),
        },
    ];
    ItemBatch { value_bytes_max: usize::MAX, steps, once: None }
}

fn version_of(answers: &[AnswerBuf]) -> u64 {
    answers.first().expect("an answer to each step").as_answer().metadata.version
}

/// The large value that an item was found to have, if it came with this upload.
fn refers_to(answer: &super::Answer<'_>, number: u64) -> Option<LargeValue> {
    let large = LargeValue::decode(answer.value).filter(|_| answer.outcome == Outcome::Large)?;
    (large.upload == number).then_some(large)
}
