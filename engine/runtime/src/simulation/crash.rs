//! What a disk holds after the power failed or the process was killed.
//!
//! After a power failure
//! - each write that no completed sync covers is lost, whole, or torn, independently of all others;
//!   a torn write leaves each of its sectors old or new, and at times one sector as garbage or as
//!   a mixture of old and new;
//! - each directory keeps a prefix of the changes that no completed directory sync covers;
//! - each file keeps a prefix of its length changes that no completed sync covers; what was written
//!   past the length that it ends up with is gone;
//! - requests that were in flight count as changes that no sync covers, in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::content::{Content, PAGE, Page, SECTOR};
use super::disk::{
    DirectoryChange, DirectoryNode, Entries, Entry, FileChange, FileNode, InFlight, NodeId, ROOT,
    SimDisk,
};
use super::random::{Random, Stream};

/// What becomes of one write that no sync covers.
enum Survival {
    Lost,
    Whole,
    Torn(Vec<Page>),
}

/// Decides what survives.
trait Choices {
    /// How many of `count` ordered changes survive.
    fn prefix(&mut self, count: usize) -> usize;
    /// What becomes of a write of `pages` over `old`.
    fn write(&mut self, old: &Content, first: u64, pages: &[Page]) -> Survival;
    /// The order in which requests that were in flight take effect.
    fn order(&mut self, in_flight: &mut [InFlight]);
}

/// Every choice at random. How many writes are lost, and how many torn, is chosen once for each
/// crash, so that "nothing survives" and "all but one survives" come up for any number of writes.
struct SeededChoices {
    random: Random,
    lost_per_million: u32,
    torn_per_million: u32,
}

impl SeededChoices {
    fn new(mut random: Random) -> Self {
        let mut share = || random.below(1_000_001) as u32;
        let (lost_per_million, torn_per_million) = (share(), share());
        Self { random, lost_per_million, torn_per_million }
    }
}

impl Choices for SeededChoices {
    fn prefix(&mut self, count: usize) -> usize {
        self.random.index(count + 1)
    }

    fn write(&mut self, old: &Content, first: u64, pages: &[Page]) -> Survival {
        if self.random.chance(self.lost_per_million) {
            Survival::Lost
        } else if self.random.chance(self.torn_per_million) {
            Survival::Torn(tear(old, first, pages, &mut self.random))
        } else {
            Survival::Whole
        }
    }

    fn order(&mut self, in_flight: &mut [InFlight]) {
        self.random.shuffle(in_flight);
    }
}

/// Goes through all combinations: each run repeats the recorded choices and takes the first
/// option of each new one; between runs the last choice that has another option moves on.
#[derive(Default)]
struct EnumeratedChoices {
    /// Each choice's option and number of options.
    taken: Vec<(usize, usize)>,
    position: usize,
}

impl EnumeratedChoices {
    fn choose(&mut self, options: usize) -> usize {
        if self.position == self.taken.len() {
            self.taken.push((0, options));
        }
        let (option, recorded) = self.taken[self.position];
        assert_eq!(options, recorded, "the same choices lead to the same question");
        self.position += 1;
        option
    }

    /// Moves to the next combination; false after the last.
    fn advance(&mut self) -> bool {
        self.position = 0;
        while let Some((option, options)) = self.taken.pop() {
            if option + 1 < options {
                self.taken.push((option + 1, options));
                return true;
            }
        }
        false
    }
}

impl Choices for EnumeratedChoices {
    fn prefix(&mut self, count: usize) -> usize {
        self.choose(count + 1)
    }

    fn write(&mut self, _old: &Content, _first: u64, _pages: &[Page]) -> Survival {
        if self.choose(2) == 0 { Survival::Lost } else { Survival::Whole }
    }

    fn order(&mut self, _in_flight: &mut [InFlight]) {}
}

impl SimDisk {
    /// The disk after a power failure at this moment; `seed` decides what survives of what is not
    /// durable. The receiver is unchanged, so one moment can be crashed in many ways.
    pub fn crash_with_seed(&self, seed: u64) -> SimDisk {
        self.crashed(&mut SeededChoices::new(Stream::Crash.of(seed)))
    }

    /// The disks after a power failure at this moment, for every combination of: each write that
    /// is not durable lost or whole, and each directory's and each file length's surviving prefix.
    /// Nothing is torn, and requests in flight take effect in the order of their submission.
    ///
    /// Yields at most `limit` disks; fewer mean that those are all. With `w` such writes there are
    /// at least `2^w`, times the prefixes. Where `limit` cuts the list off, the combinations that
    /// come are those in which the first choices (directories, then files in the order of their
    /// creation) are "nothing survives".
    pub fn enumerate_crashes(&self, limit: usize) -> impl Iterator<Item = SimDisk> {
        let mut choices = Some(EnumeratedChoices::default());
        let combinations = std::iter::from_fn(move || {
            let current = choices.as_mut()?;
            let disk = self.crashed(current);
            if !current.advance() {
                choices = None;
            }
            Some(disk)
        });
        combinations.take(limit)
    }

    /// The disk after the process was killed at this moment: what had resolved stays as it is seen,
    /// durable or not; of the requests in flight `seed` decides which took effect, a write of
    /// several pages perhaps only with the first of them.
    pub fn kill_with_seed(&self, seed: u64) -> SimDisk {
        let mut disk = self.clone();
        let mut random = Stream::Crash.of(seed);
        let in_flight = std::mem::take(&mut disk.in_flight);
        let mut in_flight: Vec<InFlight> = in_flight.into_values().collect();
        random.shuffle(&mut in_flight);
        for request in in_flight {
            disk.land_in_part(request, &mut random);
        }
        disk.close_all_handles();
        disk.forget_lost_files();
        disk
    }

    fn land_in_part(&mut self, request: InFlight, random: &mut Random) {
        match request {
            InFlight::Directory(directory, change) => {
                if random.coin() {
                    self.change_directory(directory, change);
                }
            }
            InFlight::File(file, FileChange::Write { first, pages }) => {
                let count = match random.below(3) {
                    0 => 0,
                    1 => pages.len(),
                    _ => random.index(pages.len() + 1),
                };
                self.land_write(file, first, pages[..count].into());
            }
            InFlight::File(file, change) => {
                if random.coin() {
                    self.change_file(file, change);
                }
            }
        }
    }

    /// Lets a write take effect, with the growth of the file that comes with it.
    pub(super) fn land_write(&mut self, file: NodeId, first: u64, pages: Rc<[Page]>) {
        if pages.is_empty() {
            return;
        }
        let end = (first + pages.len() as u64) * PAGE as u64;
        if end > self.len(file) {
            self.change_file(file, FileChange::Length { len: end, reserve: false });
        }
        self.change_file(file, FileChange::Write { first, pages });
    }

    fn crashed(&self, choices: &mut impl Choices) -> SimDisk {
        let mut in_flight: Vec<InFlight> = self.in_flight.values().cloned().collect();
        choices.order(&mut in_flight);
        let mut disk = SimDisk {
            directories: self.surviving_directories(&in_flight, choices),
            files: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            used_pages: 0,
            open_handles: 0,
            open_handles_max: 0,
            ..*self
        };
        let named: BTreeSet<NodeId> = disk.named_files();
        for (id, file) in self.files.iter().filter(|(id, _)| named.contains(id)) {
            let content = surviving_content(*id, file, &in_flight, choices);
            disk.used_pages += content.charged_pages();
            let node = FileNode::at_rest(content, file.bad_sectors.clone());
            disk.files.insert(*id, Rc::new(node));
        }
        disk
    }

    /// The directories that can be reached from the root, with what survives of their names.
    fn surviving_directories(
        &self,
        in_flight: &[InFlight],
        choices: &mut impl Choices,
    ) -> BTreeMap<NodeId, Rc<DirectoryNode>> {
        let mut survivors = BTreeMap::new();
        let mut reached = vec![ROOT];
        while let Some(id) = reached.pop() {
            let directory = self.directories.get(&id).expect("an entry's directory exists");
            let entries = surviving_entries(id, directory, in_flight, choices);
            reached.extend(entries.values().filter_map(|entry| match entry {
                Entry::Directory(child) => Some(*child),
                Entry::File(_) => None,
            }));
            let node =
                DirectoryNode { current: entries.clone(), durable: entries, pending: Vec::new() };
            survivors.insert(id, Rc::new(node));
        }
        survivors
    }

    fn named_files(&self) -> BTreeSet<NodeId> {
        let entries = self.directories.values().flat_map(|directory| directory.current.values());
        entries.filter_map(super::disk::file_of).collect()
    }
}

fn surviving_entries(
    id: NodeId,
    directory: &DirectoryNode,
    in_flight: &[InFlight],
    choices: &mut impl Choices,
) -> Entries {
    let submitted = in_flight.iter().filter_map(|request| match request {
        InFlight::Directory(directory, change) if *directory == id => Some(change),
        _ => None,
    });
    let resolved = directory.pending.iter().map(|(_, change)| change);
    let changes: Vec<&DirectoryChange> = resolved.chain(submitted).collect();
    let mut entries = directory.durable.clone();
    for change in &changes[..choices.prefix(changes.len())] {
        change.apply(&mut entries);
    }
    entries
}

fn surviving_content(
    id: NodeId,
    file: &FileNode,
    in_flight: &[InFlight],
    choices: &mut impl Choices,
) -> Content {
    let submitted = in_flight.iter().filter_map(|request| match request {
        InFlight::File(file, change) if *file == id => Some(change),
        _ => None,
    });
    let mut lengths = Vec::new();
    let mut writes = Vec::new();
    let resolved = file.pending.iter().map(|(_, change)| change);
    for change in resolved.chain(submitted) {
        match change {
            FileChange::Length { .. } => lengths.push(change.clone()),
            FileChange::Write { first, pages } => writes.push((*first, pages)),
        }
    }
    // A write in flight that would make the file longer brings a length change of its own.
    for request in in_flight {
        if let InFlight::File(file_id, FileChange::Write { first, pages }) = request
            && *file_id == id
        {
            let len = (first + pages.len() as u64) * PAGE as u64;
            if len > file.current.len() {
                lengths.push(FileChange::Length { len, reserve: false });
            }
        }
    }
    let mut content = file.durable.clone();
    for change in &lengths[..choices.prefix(lengths.len())] {
        change.apply(&mut content);
    }
    for (first, pages) in writes {
        settle_write(&mut content, first, pages, choices);
    }
    content.clip();
    content
}

fn settle_write(content: &mut Content, first: u64, pages: &Rc<[Page]>, choices: &mut impl Choices) {
    let survivors = match choices.write(content, first, pages) {
        Survival::Lost => return,
        Survival::Whole => Rc::clone(pages),
        Survival::Torn(torn) => torn.into(),
    };
    FileChange::Write { first, pages: survivors }.apply(content);
}

/// Makes a change durable, in part, or not at all: what a failed sync leaves behind.
pub(super) fn settle_at_random(content: &mut Content, change: &FileChange, random: &mut Random) {
    match change {
        FileChange::Length { .. } => {
            if random.coin() {
                change.apply(content);
            }
        }
        FileChange::Write { first, pages } => {
            let mut choices = SeededChoices::new(random.clone());
            settle_write(content, *first, pages, &mut choices);
            *random = choices.random;
        }
    }
}

/// The pages that a write interrupted by a power failure leaves: sectors old and new.
pub(super) fn tear(old: &Content, first: u64, pages: &[Page], random: &mut Random) -> Vec<Page> {
    let sectors_per_page = PAGE / SECTOR;
    let sectors = pages.len() * sectors_per_page;
    let is_new = torn_pattern(sectors, random);
    // At most one sector is caught half-way.
    let damaged = random.chance(250_000).then(|| random.index(sectors));
    let mut torn = Vec::with_capacity(pages.len());
    for (number, page) in pages.iter().enumerate() {
        let mut bytes = old.page(first + number as u64).bytes().to_vec();
        for sector in 0..sectors_per_page {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            let (target, new) = (&mut bytes[range.clone()], &page.bytes()[range]);
            let index = number * sectors_per_page + sector;
            if damaged == Some(index) {
                damage_sector(target, new, random);
            } else if is_new[index] {
                target.copy_from_slice(new);
            }
        }
        torn.push(Page::from_bytes(&bytes));
    }
    torn
}

/// Which sectors are new: the first few, all but one, or any.
fn torn_pattern(sectors: usize, random: &mut Random) -> Vec<bool> {
    match random.below(3) {
        0 => {
            let written = random.index(sectors + 1);
            (0..sectors).map(|sector| sector < written).collect()
        }
        1 => {
            let missing = random.index(sectors);
            (0..sectors).map(|sector| sector != missing).collect()
        }
        _ => (0..sectors).map(|_| random.coin()).collect(),
    }
}

fn damage_sector(target: &mut [u8], new: &[u8], random: &mut Random) {
    if random.coin() {
        random.fill(target);
    } else {
        let written = random.index(SECTOR);
        target[..written].copy_from_slice(&new[..written]);
    }
}
