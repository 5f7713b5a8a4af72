//! Numbers in the order in which they were last used: a doubly linked list in a vector, so that
//! every step is a few stores and nothing is allocated once the vector has grown.

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Link {
    older: u32,
    newer: u32,
    is_listed: bool,
}

const UNLISTED: Link = Link { older: NONE, newer: NONE, is_listed: false };

pub(super) struct Recency {
    links: Vec<Link>,
    oldest: u32,
    newest: u32,
}

impl Recency {
    pub(super) fn new() -> Self {
        Self { links: Vec::new(), oldest: NONE, newest: NONE }
    }

    /// Lists a number that is not listed, as the most recent one.
    pub(super) fn push(&mut self, number: usize) {
        if number >= self.links.len() {
            self.links.resize(number + 1, UNLISTED);
        }
        assert!(!self.links[number].is_listed, "{number} is listed already");
        let number = u32::try_from(number).expect("numbers of descriptors are small");
        let older = self.newest;
        self.links[number as usize] = Link { older, newer: NONE, is_listed: true };
        self.newest = number;
        self.set_newer(older, number);
    }

    /// Takes a number off the list, if it is there.
    pub(super) fn remove(&mut self, number: usize) {
        let Some(&Link { older, newer, is_listed: true }) = self.links.get(number) else { return };
        self.links[number] = UNLISTED;
        self.set_newer(older, newer);
        match newer {
            NONE => self.newest = older,
            newer => self.links[newer as usize].older = older,
        }
    }

    fn set_newer(&mut self, number: u32, newer: u32) {
        match number {
            NONE => self.oldest = newer,
            number => self.links[number as usize].newer = newer,
        }
    }

    /// The number that was pushed longest ago.
    pub(super) fn oldest(&self) -> Option<usize> {
        (self.oldest != NONE).then_some(self.oldest as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_queue_from_which_anything_can_be_taken(
            steps in prop::collection::vec((any::<bool>(), 0usize..12), 0..200),
        ) {
            let mut list = Recency::new();
            let mut model = VecDeque::new();
            for (is_push, number) in steps {
                let is_listed = model.contains(&number);
                if is_push && !is_listed {
                    list.push(number);
                    model.push_back(number);
                } else {
                    list.remove(number);
                    model.retain(|listed| *listed != number);
                }
                prop_assert_eq!(list.oldest(), model.front().copied());
            }
            while let Some(oldest) = list.oldest() {
                prop_assert_eq!(Some(oldest), model.pop_front());
                list.remove(oldest);
            }
            prop_assert!(model.is_empty());
        }
    }
}
