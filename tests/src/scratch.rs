//! Directories that outlive a failed test.

use std::path::Path;

use tempfile::TempDir;

/// A directory that is removed when it is dropped, unless the test has failed: then it stays, and
/// its path is printed.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// A new directory; `purpose` becomes part of its name.
    pub fn new(purpose: &str) -> Self {
        let prefix = format!("larder-{purpose}-");
        Self(tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary directory"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
            eprintln!("kept for a look: {}", self.0.path().display());
        }
    }
}
