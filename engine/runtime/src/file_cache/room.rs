//! The descriptors that are open, and whose turn it is to be closed for another.

use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use slab::Slab;

use super::handle::{Handle, Use};
use super::recency::Recency;
use super::{FileCacheCounters, Shared};
use crate::env::{Env, IoClass};

/// Who waits for a forced sync is a reader or a writer that a client waits for.
const SYNC_CLASS: IoClass = IoClass::Commit;

struct Slot<E: Env> {
    file: E::File,
    owner: Weak<Handle<E>>,
}

/// The descriptors.
pub(super) struct Room<E: Env> {
    open: Slab<Slot<E>>,
    /// Openings that have their place.
    opening: usize,
    /// Open, unused, and synced.
    clean: Recency,
    /// Open, unused, and written through since the last sync.
    unsynced: Recency,
    /// Openings that wait for a place, in order; the first is woken when there may be one.
    waiting: VecDeque<(u64, Waker)>,
    tickets: u64,
    counters: FileCacheCounters,
}

/// What an opening that is the first in line finds.
enum Found<E: Env> {
    Place,
    /// A place, because this file is to be closed.
    PlaceOf(E::File),
    /// No place before this one is synced.
    Unsynced(Use<E>),
    Nothing,
}

impl<E: Env> Room<E> {
    pub(super) fn new(open_max: usize) -> Self {
        Self {
            open: Slab::new(),
            opening: 0,
            clean: Recency::new(),
            unsynced: Recency::new(),
            waiting: VecDeque::new(),
            tickets: 0,
            counters: FileCacheCounters { open_max, ..FileCacheCounters::default() },
        }
    }

    pub(super) fn counters(&self) -> FileCacheCounters {
        FileCacheCounters { open: self.open.len() + self.opening, ..self.counters }
    }

    /// The file of a descriptor that is used from now on.
    #[inline]
    pub(super) fn begin_use(&mut self, slot: usize) -> E::File {
        self.clean.remove(slot);
        self.unsynced.remove(slot);
        self.open[slot].file.clone()
    }

    /// Nobody uses the descriptor any more. Returns who is to be woken.
    #[inline]
    pub(super) fn end_use(&mut self, slot: usize, is_synced: bool) -> Option<Waker> {
        let list = if is_synced { &mut self.clean } else { &mut self.unsynced };
        list.push(slot);
        self.first_in_line()
    }

    /// An opening with a place has succeeded.
    pub(super) fn opened(&mut self, file: E::File, owner: Weak<Handle<E>>) -> usize {
        self.opening -= 1;
        self.counters.opens += 1;
        self.open.insert(Slot { file, owner })
    }

    /// An opening with a place has failed. Returns who is to be woken.
    pub(super) fn not_opened(&mut self) -> Option<Waker> {
        self.opening -= 1;
        self.first_in_line()
    }

    /// The descriptor's handle is gone. The caller drops the file and then wakes the other.
    pub(super) fn close(&mut self, slot: usize) -> (E::File, Option<Waker>) {
        self.clean.remove(slot);
        self.unsynced.remove(slot);
        (self.open.remove(slot).file, self.first_in_line())
    }

    fn first_in_line(&self) -> Option<Waker> {
        self.waiting.front().map(|(_, waker)| waker.clone())
    }

    fn find(&mut self) -> Found<E> {
        if self.open.len() + self.opening < self.counters.open_max {
            self.opening += 1;
            return Found::Place;
        }
        if let Some(slot) = self.clean.oldest() {
            self.clean.remove(slot);
            let Slot { file, owner } = self.open.remove(slot);
            owner.upgrade().expect("a handle closes its descriptor when it goes").set_closed();
            self.opening += 1;
            self.counters.evictions += 1;
            return Found::PlaceOf(file);
        }
        let Some(slot) = self.unsynced.oldest() else { return Found::Nothing };
        let file = self.begin_use(slot);
        let owner = self.open[slot].owner.upgrade();
        let owner = owner.expect("a handle closes its descriptor when it goes");
        self.counters.syncs += 1;
        Found::Unsynced(Use::with(owner, file))
    }

    /// Like [`Room::find`], in order of `ticket`, which the first call gives out. Whoever finds
    /// nothing is woken when that may have changed.
    fn find_in_turn(&mut self, ticket: &mut Option<u64>, waker: &Waker) -> Found<E> {
        let place = ticket.and_then(|ticket| self.waiting.iter().position(|(t, _)| *t == ticket));
        if place.unwrap_or(self.waiting.len()) == 0 {
            match self.find() {
                Found::Nothing => {}
                found @ Found::Unsynced(_) => return found,
                found => {
                    self.waiting.pop_front();
                    return found;
                }
            }
        }
        match place {
            Some(place) => self.waiting[place].1.clone_from(waker),
            None => {
                self.tickets += 1;
                *ticket = Some(self.tickets);
                self.waiting.push_back((self.tickets, waker.clone()));
                self.counters.waits += 1;
            }
        }
        Found::Nothing
    }
}

/// Waits for a place among the open files, for an opening that is then under way. Must run in a
/// task, which goes on whenever it is woken: others wait behind it.
pub(super) async fn place<E: Env>(shared: &Rc<Shared<E>>) {
    let mut ticket = None;
    loop {
        let found = std::future::poll_fn(|context| {
            let mut state = shared.state.borrow_mut();
            match state.room.find_in_turn(&mut ticket, context.waker()) {
                Found::Nothing => Poll::Pending,
                found => Poll::Ready(found),
            }
        });
        match found.await {
            Found::Unsynced(unsynced) => unsynced.sync(SYNC_CLASS).await,
            Found::Place | Found::Nothing => break,
            Found::PlaceOf(file) => {
                drop(file);
                break;
            }
        }
    }
    // There may be room for the next one too.
    let next = shared.state.borrow().room.first_in_line();
    next.into_iter().for_each(Waker::wake);
}
