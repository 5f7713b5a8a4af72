//! A file's bytes: sparse, and cheap to copy.
//!
//! Pages are immutable and shared; a write replaces them. Groups of pages are shared between
//! copies of a file until one of them is written to.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::env::DISK_ALIGNMENT;

pub(super) const PAGE: usize = DISK_ALIGNMENT;
/// The largest unit that a device writes whole or not at all.
pub(super) const SECTOR: usize = 512;
const PAGES_PER_CHUNK: usize = 64;

const _: () = assert!(PAGE.is_multiple_of(SECTOR));

static ZERO_PAGE: [u8; PAGE] = [0; PAGE];
const HOLE: &Page = &Page::Hole;

/// One page of a file.
#[derive(Clone)]
pub(super) enum Page {
    /// Never written: reads as zero and, outside the reserved range, takes no space.
    Hole,
    /// Zeros were written.
    Zero,
    /// `PAGE` bytes.
    Data(Rc<[u8; PAGE]>),
}

impl Page {
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), PAGE);
        if *bytes == ZERO_PAGE {
            return Self::Zero;
        }
        Self::Data(share(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Hole | Self::Zero => &ZERO_PAGE,
            Self::Data(bytes) => &bytes[..],
        }
    }

    /// Whether both are the same write's page. May say no for equal bytes.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Data(one), Self::Data(other)) => Rc::ptr_eq(one, other),
            (Self::Data(_), _) | (_, Self::Data(_)) => false,
            _ => true,
        }
    }
}

fn share(bytes: &[u8]) -> Rc<[u8; PAGE]> {
    Rc::<[u8]>::from(bytes).try_into().expect("a page has PAGE bytes")
}

type Chunk = [Page; PAGES_PER_CHUNK];

/// A file's bytes, its length, and the space it takes.
///
/// Invariant: `charged_pages` is the number of pages below `reserved_pages` plus the number of
/// written pages from there on.
#[derive(Clone, Default)]
pub(super) struct Content {
    chunks: BTreeMap<u64, Rc<Chunk>>,
    len: u64,
    reserved_pages: u64,
    charged_pages: u64,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn charged_pages(&self) -> u64 {
        self.charged_pages
    }

    pub(super) fn page(&self, index: u64) -> &Page {
        let (chunk, slot) = split(index);
        self.chunks.get(&chunk).map_or(HOLE, |pages| &pages[slot])
    }

    pub(super) fn pages(&self, first: u64, count: usize) -> Vec<Page> {
        (first..first + count as u64).map(|index| self.page(index).clone()).collect()
    }

    pub(super) fn put(&mut self, index: u64, page: Page) {
        let (chunk, slot) = split(index);
        let empty = || Rc::new(std::array::from_fn(|_| Page::Hole));
        let target = &mut Rc::make_mut(self.chunks.entry(chunk).or_insert_with(empty))[slot];
        let was_hole = matches!(target, Page::Hole);
        *target = page;
        if was_hole && index >= self.reserved_pages {
            self.charged_pages += 1;
        }
    }

    /// How many more pages of space a write to these pages takes.
    pub(super) fn uncharged_by_write(&self, first: u64, count: usize) -> u64 {
        (first..first + count as u64)
            .filter(|&index| index >= self.reserved_pages)
            .filter(|&index| matches!(self.page(index), Page::Hole))
            .count() as u64
    }

    /// How many more pages of space it takes to reserve `len` bytes.
    pub(super) fn uncharged_by_reserve(&self, len: u64) -> u64 {
        let reserved = len.div_ceil(PAGE as u64).max(self.reserved_pages);
        reserved - self.reserved_pages - self.written_pages(self.reserved_pages, reserved)
    }

    /// Makes the file at least `len` bytes long, and reserves the space for them if asked to.
    pub(super) fn extend(&mut self, len: u64, reserve: bool) {
        self.len = self.len.max(len);
        if reserve {
            self.charged_pages += self.uncharged_by_reserve(len);
            self.reserved_pages = self.reserved_pages.max(len.div_ceil(PAGE as u64));
        }
    }

    pub(super) fn truncate(&mut self, len: u64) {
        self.len = len;
        let pages = len.div_ceil(PAGE as u64);
        self.reserved_pages = self.reserved_pages.min(pages);
        let (chunk, slot) = split(pages);
        if let Some(pages) = self.chunks.get_mut(&chunk) {
            Rc::make_mut(pages)[slot..].fill(Page::Hole);
        }
        self.chunks.split_off(&(chunk + 1));
        let in_last_page = (len % PAGE as u64) as usize;
        if in_last_page > 0 && matches!(self.page(pages - 1), Page::Data(_)) {
            self.edit_page(pages - 1, |bytes| bytes[in_last_page..].fill(0));
        }
        self.charged_pages =
            self.reserved_pages + self.written_pages(self.reserved_pages, u64::MAX);
    }

    /// Drops what was written past the end of the file.
    pub(super) fn clip(&mut self) {
        let pages = self.len.div_ceil(PAGE as u64);
        let is_aligned = self.len.is_multiple_of(PAGE as u64);
        if !is_aligned || self.written_pages(pages, u64::MAX) > 0 {
            self.truncate(self.len);
        }
    }

    /// Fills `out` from any offset. Bytes past the end read as zero.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) {
        for_each_page(offset, out.len(), |index, in_page, in_range| {
            out[in_range].copy_from_slice(&self.page(index).bytes()[in_page]);
        });
    }

    /// Replaces bytes at any offset; the length grows as needed.
    pub(super) fn overwrite(&mut self, offset: u64, bytes: &[u8]) {
        for_each_page(offset, bytes.len(), |index, in_page, in_range| {
            self.edit_page(index, |page| page[in_page].copy_from_slice(&bytes[in_range]));
        });
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    fn edit_page(&mut self, index: u64, edit: impl FnOnce(&mut [u8])) {
        let mut bytes = self.page(index).bytes().to_vec();
        edit(&mut bytes);
        self.put(index, Page::from_bytes(&bytes));
    }

    /// The number of pages in `first..end` that are not holes.
    fn written_pages(&self, first: u64, end: u64) -> u64 {
        let (first_chunk, first_slot) = split(first);
        let mut written = 0;
        for (&chunk, pages) in self.chunks.range(first_chunk..) {
            let base = chunk * PAGES_PER_CHUNK as u64;
            if base >= end {
                break;
            }
            let skipped = if chunk == first_chunk { first_slot } else { 0 };
            let taken = (end - base).min(PAGES_PER_CHUNK as u64) as usize;
            let in_range = pages.get(skipped..taken).unwrap_or_default();
            written += in_range.iter().filter(|page| !matches!(page, Page::Hole)).count() as u64;
        }
        written
    }
}

fn split(index: u64) -> (u64, usize) {
    (index / PAGES_PER_CHUNK as u64, (index % PAGES_PER_CHUNK as u64) as usize)
}

/// Calls `visit` with each page's index, the part of the page, and the part of the range.
fn for_each_page(
    offset: u64,
    len: usize,
    mut visit: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>),
) {
    let mut done = 0;
    while done < len {
        let position = offset + done as u64;
        let start = (position % PAGE as u64) as usize;
        let count = (PAGE - start).min(len - done);
        visit(position / PAGE as u64, start..start + count, done..done + count);
        done += count;
    }
}
