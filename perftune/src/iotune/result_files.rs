//! Where the results go: checked before anything is measured, written when all is known.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::IotuneArgs;
use super::error::IotuneError;
use crate::disk::{DiskProperties, from_toml, to_toml};
use crate::tree::{SystemFiles, SystemTree};

/// A file that an option names.
struct ResultFile {
    option: &'static str,
    path: String,
}

impl ResultFile {
    fn new(tree: &SystemTree, option: &'static str, path: &Path) -> Result<Self, IotuneError> {
        let refused = |message: String| refused(option, path, message);
        let absolute = std::path::absolute(path).map_err(|error| refused(error.to_string()))?;
        let folder = absolute.parent().unwrap_or(Path::new("/"));
        if !folder.is_dir() {
            return Err(refused(format!("there is no directory {}; make it", folder.display())));
        }
        // It is replaced as a whole, by name.
        if absolute.symlink_metadata().is_ok_and(|there| !there.is_file()) {
            return Err(refused("it is there already, and is no plain file".to_owned()));
        }
        let text = absolute.to_str().ok_or_else(|| refused("it is no UTF-8".to_owned()))?;
        tree.check_writable(text)
            .map_err(|error| refused(format!("it cannot be written: {error}")))?;
        Ok(Self { option, path: text.to_owned() })
    }

    fn write(&self, tree: &SystemTree, text: &str) -> Result<(), IotuneError> {
        let failed = |error| refused(self.option, Path::new(&self.path), format!("{error}"));
        tree.replace(&self.path, text).map_err(failed)
    }
}

fn refused(option: &'static str, path: &Path, message: String) -> IotuneError {
    IotuneError::Result { option, path: PathBuf::from(path), message }
}

/// The files that results are written to.
pub(super) struct ResultFiles<'a> {
    tree: &'a SystemTree,
    figures: ResultFile,
    json: Option<ResultFile>,
    plot: Option<ResultFile>,
    /// The disks that the file of figures has already.
    known: Vec<DiskProperties>,
}

impl<'a> ResultFiles<'a> {
    /// Finds out that all of them can be written, without doing it.
    ///
    /// # Errors
    /// Which cannot; a file of figures that is there already and is none.
    pub(super) fn check(tree: &'a SystemTree, args: &IotuneArgs) -> Result<Self, IotuneError> {
        let other = |option, path: &Option<PathBuf>| {
            path.as_ref().map(|path| ResultFile::new(tree, option, path)).transpose()
        };
        let figures = ResultFile::new(tree, "--out", &args.out)?;
        let known = match tree.read(&figures.path) {
            Ok(text) => from_toml(&text).map_err(|error| {
                let message = format!(
                    "it is there, and is no file of figures ({error}); give another name, or \
                     remove it"
                );
                refused("--out", &args.out, message)
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(refused("--out", &args.out, error.to_string())),
        };
        let json = other("--json", &args.json)?;
        let plot = other("--plot", &args.plot)?;
        Ok(Self { tree, figures, json, plot, known })
    }

    /// The text of the file of figures: other disks that it has stay in it.
    ///
    /// # Errors
    /// Figures that such a file cannot have.
    pub(super) fn figures(&self, disk: &DiskProperties) -> Result<String, String> {
        let mut disks = self.known.clone();
        for known in &mut disks {
            known.mountpoints.retain(|path| !disk.mountpoints.contains(path));
        }
        disks.retain(|known| !known.mountpoints.is_empty());
        disks.push(disk.clone());
        let text = to_toml(&disks);
        from_toml(&text).map_err(|error| format!("{}: {}", error.key, error.message))?;
        Ok(text)
    }

    /// Writes all that was asked for; the other two are made only if they were.
    pub(super) fn write(
        &self,
        figures: &str,
        json: impl FnOnce() -> String,
        plot: impl FnOnce() -> String,
    ) -> Result<(), IotuneError> {
        if let Some(file) = &self.json {
            file.write(self.tree, &json())?;
        }
        if let Some(file) = &self.plot {
            file.write(self.tree, &plot())?;
        }
        self.figures.write(self.tree, figures)
    }
}
