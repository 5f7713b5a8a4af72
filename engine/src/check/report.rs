//! What a check has found, file by file.

/// Problems of one file that are kept with their text; the others are counted.
const PROBLEMS_MAX: usize = 1000;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Bytes from the start of the file, if there is such a place.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What was found in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileReport {
    /// The file's name in the shard's directory.
    pub name: String,
    /// The file's length in bytes.
    pub bytes: u64,
    /// What was checked, for people.
    pub checked: String,
    /// What is wrong, the first of it.
    pub problems: Vec<Problem>,
    /// How many problems there are, those included that are not kept.
    pub problem_count: u64,
}

impl FileReport {
    pub(super) fn new(name: impl Into<String>, bytes: u64) -> Self {
        Self { name: name.into(), bytes, ..Self::default() }
    }

    pub(super) fn problem(&mut self, offset: impl Into<Option<u64>>, what: impl Into<String>) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { offset: offset.into(), what: what.into() });
        }
    }
}

/// What was found in a shard's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Every file, in the order of their names.
    pub files: Vec<FileReport>,
    /// Frames of the value log whose checksums were compared.
    pub frames: u64,
    /// Records of the value log whose checksums were compared.
    pub records: u64,
    /// Blocks of tables whose checksums were compared.
    pub blocks: u64,
    /// Entries of tables that were decoded.
    pub entries: u64,
    /// Pointers of index entries whose targets were read.
    pub pointers: u64,
}

impl Report {
    /// How many problems there are.
    pub fn problems(&self) -> u64 {
        self.files.iter().map(|file| file.problem_count).sum()
    }

    /// The report on the file of this name, which is added if there is none.
    pub(super) fn file(&mut self, name: &str) -> &mut FileReport {
        let at = match self.files.binary_search_by(|file| file.name.as_str().cmp(name)) {
            Ok(at) => at,
            Err(at) => {
                self.files.insert(at, FileReport::new(name, 0));
                at
            }
        };
        &mut self.files[at]
    }
}
