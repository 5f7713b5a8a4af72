//! Looking at a disk and damaging it, from outside of any run.
//!
//! Everything here acts on the data at rest: what reads see and what survives a crash alike. A path
//! that does not name a file is a mistake of the test, and panics.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::content::{Content, SECTOR};
use super::disk::{Entry, FileNode, NodeId, ROOT, SimDisk};
use super::random::Stream;

impl SimDisk {
    /// All files with their lengths in bytes, sorted by path. Paths begin with a slash.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        self.collect_files(ROOT, Path::new("/"), &mut files);
        files.sort();
        files
    }

    fn collect_files(&self, directory: NodeId, path: &Path, files: &mut Vec<(PathBuf, u64)>) {
        for (name, entry) in self.entries(directory) {
            let path = path.join(name);
            match entry {
                Entry::File(file) => files.push((path, self.len(*file))),
                Entry::Directory(child) => self.collect_files(*child, &path, files),
            }
        }
    }

    /// Whether `path` is a file or a directory.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.lookup(path.as_ref()).is_ok()
    }

    /// The bytes of a file in `range`, as reads see them. Those past its end are zero.
    pub fn read_range(&self, path: impl AsRef<Path>, range: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.file(path.as_ref()).current.read(range.start, &mut bytes);
        bytes
    }

    /// All bytes of a file, as reads see them.
    pub fn read_all(&self, path: impl AsRef<Path>) -> Vec<u8> {
        let len = self.file(path.as_ref()).current.len();
        self.read_range(path, 0..len)
    }

    /// Creates a directory and its missing parents, and makes all names along the path durable.
    pub fn create_directory(&mut self, path: impl AsRef<Path>) {
        self.make_directories(path.as_ref()).expect("no file is in the way");
        for ancestor in path.as_ref().ancestors() {
            let directory = self.lookup_directory(ancestor).expect("just created");
            self.sync_directory(directory, u64::MAX, usize::MAX);
        }
    }

    /// Writes bytes at any offset of a file, and makes it longer as needed.
    pub fn write_raw(&mut self, path: impl AsRef<Path>, offset: u64, bytes: &[u8]) {
        self.edit(path.as_ref(), |content| content.overwrite(offset, bytes));
    }

    /// Makes a file `len` bytes long, be it shorter or longer.
    pub fn truncate(&mut self, path: impl AsRef<Path>, len: u64) {
        self.edit(path.as_ref(), |content| content.truncate(len));
    }

    /// Flips bit `bit` (0 to 7) of the byte at `offset`.
    pub fn flip_bit(&mut self, path: impl AsRef<Path>, offset: u64, bit: u8) {
        assert!(bit < 8, "a byte has no bit {bit}");
        self.edit(path.as_ref(), |content| {
            assert!(offset < content.len(), "offset {offset} is past the end of the file");
            let mut byte = [0];
            content.read(offset, &mut byte);
            content.overwrite(offset, &[byte[0] ^ (1 << bit)]);
        });
    }

    /// Zeroes the 512-byte sector that holds `offset`.
    pub fn zero_sector(&mut self, path: impl AsRef<Path>, offset: u64) {
        self.edit(path.as_ref(), |content| {
            let start = offset - offset % SECTOR as u64;
            let end = (start + SECTOR as u64).min(content.len());
            content.overwrite(start, &vec![0; end.saturating_sub(start) as usize]);
        });
    }

    /// Fills `range` of a file with random bytes.
    pub fn corrupt(&mut self, path: impl AsRef<Path>, range: Range<u64>, seed: u64) {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        Stream::Disk.of(seed).fill(&mut bytes);
        self.write_raw(path, range.start, &bytes);
    }

    /// Makes the 512-byte sector that holds `offset` unreadable (`EIO`) until it is written again.
    pub fn lose_sector(&mut self, path: impl AsRef<Path>, offset: u64) {
        let file = self.lookup_file(path.as_ref()).expect("the path names a file");
        self.update_file(file, |file| {
            file.bad_sectors.insert(offset / SECTOR as u64);
        });
    }

    fn file(&self, path: &Path) -> &FileNode {
        let file = self.lookup_file(path).expect("the path names a file");
        self.files.get(&file).expect("a named file exists")
    }

    fn edit(&mut self, path: &Path, edit: impl Fn(&mut Content)) {
        let file = self.lookup_file(path).expect("the path names a file");
        self.update_file(file, |file| {
            edit(&mut file.current);
            edit(&mut file.durable);
        });
    }
}
