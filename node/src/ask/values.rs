//! Values on their way between files, pipes and a node, whole or in chunks.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use larder_client::{
    ClientConnection, ClientError, HelloReply, Item, ItemRef, LargePut, Put, Stored, ValueReader,
};

use super::print::Printer;
use super::progress::Counted;
use super::{AskError, SetArgs};
use crate::limits::ITEM_BYTES_RANGE;

/// A value that is to be stored.
pub(super) enum Given {
    /// It is here.
    Bytes(Vec<u8>),
    /// It is what a file of this length holds, which is read when it is stored.
    File(File, u64),
}

impl Given {
    /// What the arguments say.
    pub(super) fn of(args: &SetArgs) -> Result<Self, AskError> {
        if let Some(value) = &args.value {
            return Ok(Self::Bytes(value.as_bytes().to_vec()));
        }
        let Some(path) = &args.file else {
            return read_all(io::stdin().lock(), "standard input".to_owned(), args);
        };
        let what = path.display().to_string();
        let opened = open_file(path).and_then(|file| Ok((file.metadata()?, file)));
        match opened {
            Ok((metadata, file)) if metadata.is_file() => {
                within_limit(metadata.len())?;
                Ok(Self::File(file, metadata.len()))
            }
            Ok((_, file)) => read_all(file, what, args),
            Err(source) => Err(AskError::Input { what, source }),
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, len) => *len,
        }
    }

    /// Stores it, in chunks if it is longer than what the node takes in one piece.
    pub(super) fn store(
        self,
        node: &mut ClientConnection,
        key: ItemRef<'_>,
        args: &SetArgs,
    ) -> Result<Stored, AskError> {
        let (len, when, ttl) = (self.len(), args.when(), args.ttl);
        let HelloReply { value_bytes_max, large_bytes_max, .. } = node.hello("larder set")?;
        if len > u64::from(value_bytes_max) {
            if large_bytes_max == 0 {
                return Err(AskError::NoChunks(len));
            }
            let len = u32::try_from(len).map_err(|_| AskError::TooLong(len))?;
            let put = LargePut { len, when, client_flags: 0, ttl };
            let progress = args.progress.of_value(len, args.node.json);
            let stored = match self {
                Self::Bytes(bytes) => {
                    node.put_large(key, &put, bytes.as_slice(), |done| progress.set(done))
                }
                Self::File(file, _) => node.put_large(key, &put, file, |done| progress.set(done)),
            };
            drop(progress);
            return Ok(stored?);
        }
        let bytes = match self {
            Self::Bytes(bytes) => bytes,
            Self::File(file, len) => {
                let mut bytes = Vec::new();
                // What has been added since is another value's.
                file.take(len).read_to_end(&mut bytes).map_err(ClientError::Source)?;
                bytes
            }
        };
        Ok(node.put(key, &Put { value: &bytes, when, client_flags: 0, ttl })?)
    }
}

fn within_limit(len: u64) -> Result<(), AskError> {
    let most = *ITEM_BYTES_RANGE.end();
    if len > most { Err(AskError::TooLong(most)) } else { Ok(()) }
}

/// Reads what has no length that could be told before. More than any node takes is not kept.
fn read_all(source: impl Read, what: String, args: &SetArgs) -> Result<Given, AskError> {
    let progress = args.progress.of_bytes(args.node.json);
    let source = source.take(*ITEM_BYTES_RANGE.end() + 1);
    let mut value = Vec::new();
    let read = Counted { source, progress: &progress }.read_to_end(&mut value);
    read.map_err(|source| AskError::Input { what, source })?;
    within_limit(value.len() as u64)?;
    Ok(Given::Bytes(value))
}

#[allow(clippy::disallowed_methods, reason = "a command of its own, not a node, reads the file")]
fn open_file(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Shows a value: byte for byte as it comes, or as JSON when all of it is there.
pub(super) fn show(printer: &Printer, value: Option<ValueReader<'_>>) -> Result<(), AskError> {
    let Some(mut value) = value else { return Ok(printer.item(None)?) };
    if !printer.is_json() {
        let mut out = io::stdout().lock();
        while let Some(chunk) = value.next_chunk()? {
            out.write_all(&chunk)?;
        }
        return Ok(out.flush()?);
    }
    let mut item = Item { value: Vec::new(), ..value.item().clone() };
    while let Some(chunk) = value.next_chunk()? {
        item.value.extend_from_slice(&chunk);
    }
    Ok(printer.item(Some(&item))?)
}
