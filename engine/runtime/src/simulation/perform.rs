//! What each disk operation does at the moment when it is done, faults included.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use super::content::{Content, PAGE, Page, SECTOR};
use super::crash::{settle_at_random, tear};
use super::disk::{DirectoryChange, Entry, FileChange, InFlight, NodeId};
use super::faults::Failure;
use super::operation::{Outcome, Request, page_of, remove, rename};
use super::world::State;
use crate::buffer::Buffer;
use crate::env::OpenMode;

impl State {
    pub(super) fn perform(&mut self, request: Request, failure: Option<Failure>) -> Outcome {
        let failed = failure.map(Failure::error);
        match request {
            Request::Open { path, mode, created } => self.open(&path, mode, created, failed),
            Request::Read { file, offset, mut buffer, snapshot } => {
                let read = || self.read(file, offset, &mut buffer, &snapshot);
                let result = failed.map_or_else(read, Err);
                Outcome::with_buffer(result, buffer)
            }
            Request::Write { file, offset, buffer, pages } => {
                let result = self.write(file, page_of(offset), pages, failed);
                Outcome::with_buffer(result, buffer)
            }
            Request::Sync { file, covered } => Outcome::of(self.sync(file, covered, failed)),
            Request::Allocate { file, len } => {
                let allocate = || self.allocate(file, len);
                Outcome::of(failed.map_or_else(allocate, Err))
            }
            Request::Rename { from, to } => {
                let change = failed.map_or_else(|| rename(&self.disk, &from, &to), Err);
                Outcome::of(self.change_names(change))
            }
            Request::Remove { path } => {
                let change = failed.map_or_else(|| remove(&self.disk, &path), Err);
                Outcome::of(self.change_names(change))
            }
            Request::SyncDirectory { path, covered } => {
                Outcome::of(self.sync_directory(&path, covered, failed))
            }
        }
    }

    /// Ends an operation that was taken back before it did anything.
    pub(super) fn cancel(&mut self, request: Request) -> Outcome {
        let error = Failure::Cancelled.error();
        match request {
            Request::Open { created, .. } => self.refuse_open(created, error),
            Request::Read { buffer, .. } | Request::Write { buffer, .. } => {
                Outcome::with_buffer(Err(error), buffer)
            }
            _ => Outcome::of(Err(error)),
        }
    }

    // ---- names

    fn open(
        &mut self,
        path: &Path,
        mode: OpenMode,
        created: Option<NodeId>,
        failed: Option<io::Error>,
    ) -> Outcome {
        if let Some(error) = failed {
            return self.refuse_open(created, error);
        }
        let opened = match mode {
            OpenMode::CreateNew => self.create(path, created),
            OpenMode::Read | OpenMode::ReadWrite => self.disk.lookup_file(path).inspect(|&file| {
                self.disk.open_handle(file);
            }),
        };
        match opened {
            Ok(file) => Outcome { opened: Some(file), ..Outcome::of(Ok(())) },
            Err(error) => self.refuse_open(created, error),
        }
    }

    fn create(&mut self, path: &Path, created: Option<NodeId>) -> io::Result<NodeId> {
        let (directory, name) = self.disk.lookup_parent(path)?;
        if self.disk.entries(directory).contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = created.unwrap_or_else(|| self.disk.create_unnamed());
        let change = DirectoryChange::Link { name, entry: Entry::File(file) };
        self.disk.change_directory(directory, change);
        Ok(file)
    }

    fn refuse_open(&mut self, created: Option<NodeId>, error: io::Error) -> Outcome {
        if let Some(file) = created {
            self.disk.close_handle(file);
            self.disk.forget_lost_files();
        }
        Outcome::of(Err(error))
    }

    fn change_names(&mut self, change: io::Result<(NodeId, DirectoryChange)>) -> io::Result<()> {
        let (directory, change) = change?;
        self.disk.change_directory(directory, change);
        Ok(())
    }

    fn sync_directory(
        &mut self,
        path: &Path,
        covered: u64,
        failed: Option<io::Error>,
    ) -> io::Result<()> {
        let directory = self.disk.lookup_directory(path)?;
        if let Some(error) = failed {
            let pending = self.disk.directories[&directory].pending.len();
            let survivors = self.fault_random.index(pending + 1);
            self.disk.sync_directory(directory, covered, survivors);
            return Err(error);
        }
        if !self.faults.skip_sync {
            self.disk.sync_directory(directory, covered, usize::MAX);
        }
        Ok(())
    }

    // ---- content

    fn sync(&mut self, file: NodeId, covered: u64, failed: Option<io::Error>) -> io::Result<()> {
        if let Some(error) = failed {
            let random = &mut self.fault_random;
            self.disk.sync_file(file, covered, |durable, change| {
                settle_at_random(durable, &change, random);
            });
            return Err(error);
        }
        if !self.faults.skip_sync {
            self.disk.sync_file(file, covered, |durable, change| change.apply(durable));
        }
        Ok(())
    }

    fn allocate(&mut self, file: NodeId, len: u64) -> io::Result<()> {
        let node = self.disk.files.get(&file).ok_or_else(gone)?;
        self.disk.check_space(node.current.uncharged_by_reserve(len))?;
        self.disk.change_file(file, FileChange::Length { len, reserve: true });
        Ok(())
    }

    fn write(
        &mut self,
        file: NodeId,
        first: u64,
        mut pages: Rc<[Page]>,
        failed: Option<io::Error>,
    ) -> io::Result<()> {
        let content = &self.disk.files.get(&file).ok_or_else(gone)?.current;
        self.disk.check_space(content.uncharged_by_write(first, pages.len()))?;
        let random = &mut self.fault_random;
        if let Some(error) = failed {
            match random.below(3) {
                0 => {}
                1 => self.store(file, first, pages),
                _ => {
                    let torn = tear(content, first, &pages, random);
                    self.store(file, first, torn.into());
                }
            }
            return Err(error);
        }
        if random.chance(self.faults.bit_flip_at_rest_per_million) {
            pages = flip_bit(&pages, random.bits());
        }
        if random.chance(self.faults.stale_write_per_million) {
            self.grow(file, first, pages.len());
        } else if random.chance(self.faults.misdirected_write_per_million) {
            self.misdirect(file, first, pages);
        } else {
            self.store(file, first, pages);
        }
        Ok(())
    }

    fn store(&mut self, file: NodeId, first: u64, pages: Rc<[Page]>) {
        self.disk.update_file(file, |file| {
            if !file.bad_sectors.is_empty() {
                let healed = sectors(first, pages.len());
                file.bad_sectors.retain(|sector| !healed.contains(sector));
            }
        });
        self.disk.land_write(file, first, pages);
    }

    fn grow(&mut self, file: NodeId, first: u64, count: usize) {
        let len = (first + count as u64) * PAGE as u64;
        if len > self.disk.len(file) {
            self.disk.change_file(file, FileChange::Length { len, reserve: false });
        }
    }

    fn misdirect(&mut self, file: NodeId, first: u64, pages: Rc<[Page]>) {
        self.grow(file, first, pages.len());
        if let Some(elsewhere) = self.another_place(file, first, pages.len()) {
            self.store(file, elsewhere, pages);
        }
    }

    /// The first page of a run of `count` pages of the file that shares no page with the given one.
    fn another_place(&mut self, file: NodeId, first: u64, count: usize) -> Option<u64> {
        let (count, len) = (count as u64, self.disk.len(file) / PAGE as u64);
        // First pages of runs that end before the given one, and of those that begin after it.
        let before = (first + 1).saturating_sub(count);
        let after = (len + 1).saturating_sub(first + 2 * count);
        if before + after == 0 {
            return None;
        }
        let chosen = self.fault_random.below(before + after);
        Some(if chosen < before { chosen } else { chosen - before + first + count })
    }

    fn read(
        &mut self,
        file: NodeId,
        offset: u64,
        buffer: &mut Buffer,
        snapshot: &[Page],
    ) -> io::Result<()> {
        let count = buffer.len() / PAGE;
        let mut first = page_of(offset);
        if offset + buffer.len() as u64 > self.disk.files.get(&file).ok_or_else(gone)?.current.len()
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.check_sectors(file, first, count)?;
        if self.fault_random.chance(self.faults.misdirected_read_per_million)
            && let Some(elsewhere) = self.another_place(file, first, count)
        {
            first = elsewhere;
            self.disk.files[&file].current.read(first * PAGE as u64, buffer);
        } else {
            self.read_concurrently(file, first, buffer, snapshot);
        }
        if self.fault_random.chance(self.faults.bit_flip_at_read_per_million) {
            let bit = self.fault_random.index(buffer.len() * 8);
            buffer[bit / 8] ^= 1 << (bit % 8);
        }
        Ok(())
    }

    fn check_sectors(&mut self, file: NodeId, first: u64, count: usize) -> io::Result<()> {
        let sectors = sectors(first, count);
        if self.fault_random.chance(self.faults.latent_sector_error_per_million) {
            let lost = self.fault_random.within(&(sectors.start..=sectors.end - 1));
            self.disk.update_file(file, |file| {
                file.bad_sectors.insert(lost);
            });
        }
        let is_readable = self.disk.files[&file].bad_sectors.range(sectors).next().is_none();
        if is_readable { Ok(()) } else { Err(Failure::Io.error()) }
    }

    /// Fills `buffer` with what the pages held when the read was submitted, what they hold now, or
    /// what a write in flight is about to put there: one of them for the whole read, or for each
    /// sector on its own.
    fn read_concurrently(
        &mut self,
        file: NodeId,
        first: u64,
        buffer: &mut Buffer,
        snapshot: &[Page],
    ) {
        let content: &Content = &self.disk.files[&file].current;
        let writes = self.disk.in_flight.values().filter_map(|request| match request {
            InFlight::File(target, FileChange::Write { first, pages }) if *target == file => {
                Some((*first, pages))
            }
            _ => None,
        });
        let writes: Vec<(u64, &Rc<[Page]>)> = writes.collect();
        let mut mixture = None;
        for (number, bytes) in buffer.chunks_exact_mut(PAGE).enumerate() {
            let index = first + number as u64;
            let current = content.page(index);
            let mut versions = versions_before(current, snapshot.get(number));
            for (start, pages) in &writes {
                let in_write = index.checked_sub(*start).and_then(|slot| pages.get(slot as usize));
                versions.extend(in_write);
            }
            if versions.is_empty() {
                bytes.copy_from_slice(current.bytes());
                continue;
            }
            versions.push(current);
            // Drawn only where there is a choice, so that a read alone costs no draw.
            let mixture = *mixture.get_or_insert_with(|| self.fault_random.below(4));
            match mixture {
                0 => versions.truncate(1),
                1 => versions = vec![current],
                _ => {}
            }
            for (sector, bytes) in bytes.chunks_exact_mut(SECTOR).enumerate() {
                let version = versions[self.fault_random.index(versions.len())];
                let range = sector * SECTOR..(sector + 1) * SECTOR;
                bytes.copy_from_slice(&version.bytes()[range]);
            }
        }
    }
}

/// The page at the read's submission, if it has changed since.
fn versions_before<'a>(current: &'a Page, snapshot: Option<&'a Page>) -> Vec<&'a Page> {
    snapshot.filter(|page| !page.is_same(current)).into_iter().collect()
}

fn flip_bit(pages: &[Page], choice: u64) -> Rc<[Page]> {
    let bit = choice as usize % (pages.len() * PAGE * 8);
    let (target, bit) = (bit / (PAGE * 8), bit % (PAGE * 8));
    let mut bytes = pages[target].bytes().to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    let mut flipped = pages.to_vec();
    flipped[target] = Page::from_bytes(&bytes);
    flipped.into()
}

fn sectors(first: u64, count: usize) -> Range<u64> {
    let per_page = (PAGE / SECTOR) as u64;
    first * per_page..(first + count as u64) * per_page
}

/// The file of an abandoned request was removed and closed meanwhile.
fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::EBADF)
}
