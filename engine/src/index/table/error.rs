//! What can go wrong with a table's file.

use std::io;
use std::path::{Path, PathBuf};

/// An error of a table's file. None of them is retried.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The operating system refused a request.
    #[error("{}: cannot {operation}: {source}", path.display())]
    Io {
        /// The table's file.
        path: PathBuf,
        /// What was attempted, as a verb.
        operation: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// Bytes of the file are not those that were written.
    #[error("{}: damaged at offset {offset}: {what}", path.display())]
    Damaged {
        /// The table's file.
        path: PathBuf,
        /// Which check failed.
        what: &'static str,
        /// The start of the damaged block, in bytes from the start of the file.
        offset: u64,
    },
    /// The file is sound but of a format that this program does not know.
    #[error("{}: table format {found}, this program reads format {supported}", path.display())]
    WrongFormat {
        /// The table's file.
        path: PathBuf,
        /// The format's number in the file.
        found: u32,
        /// The number that this program reads.
        supported: u32,
    },
}

impl TableError {
    /// Wraps an [`io::Error`]; to be used with `map_err`.
    pub(super) fn io(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), operation, source }
    }

    /// Says where `malformed` bytes were found; to be used with `map_err`.
    pub(super) fn damaged(path: &Path, offset: u64) -> impl FnOnce(Malformed) -> Self {
        move |malformed| Self::Damaged { path: path.to_owned(), what: malformed.0, offset }
    }
}

/// A check that bytes failed; the caller adds where they were.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_file_and_the_place() {
        let path = Path::new("a/table-1.sst");
        let io = TableError::io(path, "read")(io::Error::other("broken"));
        assert_eq!(io.to_string(), "a/table-1.sst: cannot read: broken");
        let damaged = TableError::damaged(path, 4096)(Malformed("wrong checksum"));
        assert_eq!(damaged.to_string(), "a/table-1.sst: damaged at offset 4096: wrong checksum");
        let format = TableError::WrongFormat { path: path.into(), found: 2, supported: 1 };
        assert_eq!(
            format.to_string(),
            "a/table-1.sst: table format 2, this program reads format 1"
        );
    }
}
