use std::collections::VecDeque;

use proptest::prelude::*;

use super::{COST_MAX, FRACTION_BITS, FairQueue, SHARES_MAX};

/// Costs of backlogged classes, cycled through forever.
type Costs = Vec<u64>;

fn shares() -> impl Strategy<Value = u32> {
    prop_oneof![1u32..10, 10u32..=1000]
}

fn costs() -> impl Strategy<Value = Costs> {
    proptest::collection::vec(prop_oneof![1u64..10, 4_096u64..1_000_000], 1..6)
}

fn classes() -> impl Strategy<Value = Vec<(u32, Costs)>> {
    proptest::collection::vec((shares(), costs()), 2..8)
}

/// A queue in which classes stay backlogged, and the cost taken from each of them.
struct Backlog {
    queue: FairQueue<()>,
    classes: Vec<(u32, Costs)>,
    pushed: Vec<usize>,
    taken: Vec<u64>,
    pops: u64,
}

impl Backlog {
    /// The classes with an index below `awake` are backlogged from the start.
    fn new(classes: Vec<(u32, Costs)>, burst: u64, awake: usize) -> Self {
        let shares: Vec<u32> = classes.iter().map(|class| class.0).collect();
        let count = classes.len();
        let queue = FairQueue::new(&shares, burst);
        let mut backlog =
            Self { queue, classes, pushed: vec![0; count], taken: vec![0; count], pops: 0 };
        for class in 0..awake {
            backlog.push(class);
        }
        backlog
    }

    /// Two items, so that the class still waits when one is taken and before its successor comes.
    fn push(&mut self, class: usize) {
        self.push_one(class);
        self.push_one(class);
    }

    fn push_one(&mut self, class: usize) {
        let costs = &self.classes[class].1;
        let cost = costs[self.pushed[class] % costs.len()];
        self.queue.push(class, cost, ());
        self.pushed[class] += 1;
    }

    fn pop(&mut self) -> usize {
        let (class, cost, ()) = self.queue.pop().expect("the classes are backlogged");
        self.push_one(class);
        self.taken[class] += cost;
        self.pops += 1;
        class
    }

    fn shares(&self, class: usize) -> i128 {
        i128::from(self.classes[class].0)
    }

    fn cost_max(&self, class: usize) -> i128 {
        i128::from(*self.classes[class].1.iter().max().unwrap())
    }

    /// By how much `one` is ahead of `other`: the difference of cost per share, multiplied by both
    /// shares to stay in integers.
    fn lead(&self, one: usize, other: usize) -> i128 {
        i128::from(self.taken[one]) * self.shares(other)
            - i128::from(self.taken[other]) * self.shares(one)
    }

    /// One item of each, in the units of `lead`, and what charges lose by rounding.
    fn one_item_of_each(&self, one: usize, other: usize) -> i128 {
        let rounding = (i128::from(self.pops) + 2) * self.shares(one) * self.shares(other);
        self.cost_max(one) * self.shares(other)
            + self.cost_max(other) * self.shares(one)
            + (rounding >> FRACTION_BITS)
            + 1
    }
}

proptest! {
    #[test]
    fn backlogged_classes_are_served_in_proportion_to_within_one_item(
        classes in classes(), burst in 0u64..10_000_000,
    ) {
        let count = classes.len();
        let mut backlog = Backlog::new(classes, burst, count);
        for _ in 0..400 {
            backlog.pop();
            for one in 0..count {
                for other in 0..count {
                    let bound = backlog.one_item_of_each(one, other);
                    prop_assert!(backlog.lead(one, other) <= bound);
                }
            }
        }
    }

    #[test]
    fn a_class_that_wakes_gets_its_part_and_at_most_one_burst_more(
        classes in classes(), burst in prop_oneof![Just(0), 0u64..10_000_000],
        alone in 0usize..300,
    ) {
        let sleeper = classes.len() - 1;
        let mut backlog = Backlog::new(classes, burst, sleeper);
        for _ in 0..alone {
            backlog.pop();
        }
        backlog.taken.fill(0);
        backlog.push(sleeper);
        for _ in 0..400 {
            backlog.pop();
            for other in 0..sleeper {
                let items = backlog.one_item_of_each(sleeper, other);
                let burst = i128::from(burst) * backlog.shares(other);
                prop_assert!(backlog.lead(sleeper, other) <= items + burst);
                prop_assert!(backlog.lead(other, sleeper) <= items);
            }
        }
    }

    /// However the others come and go, an item waits for no more than a bounded cost of theirs.
    #[test]
    fn no_class_starves(
        classes in classes(), burst in 0u64..1_000_000, warm_up in 0usize..100,
        choices in proptest::collection::vec(any::<bool>(), 400),
    ) {
        let victim = classes.len() - 1;
        let mut backlog = Backlog::new(classes, burst, victim);
        for _ in 0..warm_up {
            backlog.pop();
        }
        backlog.taken.fill(0);
        backlog.push(victim);
        // The other classes are drained and woken in turns, to claim their burst again and again.
        let mut victim_served = false;
        for refill in choices {
            let (class, cost, ()) = backlog.queue.pop().expect("the victim waits");
            backlog.taken[class] += cost;
            backlog.pops += 1;
            if class == victim {
                victim_served = true;
                break;
            }
            if refill || backlog.queue.len() == 2 {
                (0..victim).for_each(|other| backlog.push_one(other));
            }
            for other in 0..victim {
                let items = backlog.one_item_of_each(other, victim);
                let burst = i128::from(burst) * backlog.shares(victim);
                prop_assert!(backlog.lead(other, victim) <= items + burst);
            }
        }
        let patience: i128 = (0..victim)
            .map(|other| {
                let room = backlog.one_item_of_each(other, victim);
                (room + i128::from(burst) * backlog.shares(victim)) / backlog.shares(victim) + 1
            })
            .sum();
        let taken: u64 = backlog.taken.iter().sum();
        prop_assert!(victim_served || i128::from(taken) < patience);
    }

    /// Against one plain queue per class: nothing is lost, invented or reordered within a class,
    /// and there is always something to take while anything waits.
    #[test]
    fn work_conserving_and_first_in_first_out_per_class(
        shares in proptest::collection::vec(1..=SHARES_MAX, 1..=16),
        burst in 0..=COST_MAX,
        steps in proptest::collection::vec((0u8..8, 0usize..16, 1..=COST_MAX), 0..300),
    ) {
        let mut queue = FairQueue::new(&shares, burst);
        let mut twin = FairQueue::new(&shares, burst);
        let mut model = vec![VecDeque::new(); shares.len()];
        for (number, (action, class, cost)) in steps.into_iter().enumerate() {
            let class = class % shares.len();
            match action {
                0..4 => {
                    queue.push(class, cost, number);
                    twin.push(class, cost, number);
                    model[class].push_back((cost, number));
                }
                4..7 => {
                    let peeked = queue.peek().map(|(class, cost, item)| (class, cost, *item));
                    let popped = queue.pop();
                    prop_assert_eq!(peeked, popped);
                    prop_assert_eq!(twin.pop(), popped, "the same calls, another order");
                    match popped {
                        Some((class, cost, item)) => {
                            prop_assert_eq!(model[class].pop_front(), Some((cost, item)));
                        }
                        None => prop_assert!(model.iter().all(VecDeque::is_empty)),
                    }
                }
                _ => {
                    let shares = u32::try_from(cost % u64::from(SHARES_MAX)).unwrap() + 1;
                    queue.set_shares(class, shares);
                    twin.set_shares(class, shares);
                }
            }
            let waiting: usize = model.iter().map(VecDeque::len).sum();
            prop_assert_eq!(queue.len(), waiting);
            prop_assert_eq!(queue.is_empty(), waiting == 0);
        }
    }
}

#[test]
fn two_classes_alternate_by_their_shares() {
    let mut queue = FairQueue::new(&[2, 1], 0);
    for number in 0..6 {
        queue.push(0, 10, number);
        queue.push(1, 10, number);
    }
    let order: Vec<usize> = (0..9).map(|_| queue.pop().unwrap().0).collect();
    assert_eq!(order, [0, 1, 0, 0, 1, 0, 0, 1, 0]);
}

#[test]
fn what_is_given_back_has_cost_nothing() {
    let mut queue = FairQueue::new(&[1, 3], 10);
    let mut same = FairQueue::new(&[1, 3], 10);
    for number in 0..40 {
        queue.push(0, 1_000, None);
        queue.push(0, 7, Some(number));
        queue.push(1, 7, Some(number));
        same.push(0, 7, Some(number));
        same.push(1, 7, Some(number));
    }
    let mut wanted = Vec::new();
    while let Some((class, cost, item)) = queue.pop() {
        match item {
            Some(number) => wanted.push((class, number)),
            None => queue.give_back(class, cost),
        }
    }
    let expected = std::iter::from_fn(|| same.pop()).map(|(class, _, item)| (class, item.unwrap()));
    assert_eq!(wanted, expected.collect::<Vec<_>>());
}

#[test]
fn a_large_item_is_paid_for_afterwards() {
    let mut queue = FairQueue::new(&[1, 1], 0);
    queue.push(0, 100, ());
    queue.push(0, 100, ());
    for _ in 0..12 {
        queue.push(1, 10, ());
    }
    let order: Vec<usize> = (0..14).map(|_| queue.pop().unwrap().0).collect();
    assert_eq!(order, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1]);
}

#[test]
fn an_idle_class_bursts_by_the_burst_and_no_more() {
    let burst_of = |burst: u64| {
        let mut queue = FairQueue::new(&[1, 1], burst);
        for _ in 0..100 {
            queue.push(0, 10, ());
        }
        for _ in 0..50 {
            assert_eq!(queue.pop().unwrap().0, 0);
        }
        for _ in 0..100 {
            queue.push(1, 10, ());
        }
        (0..100).take_while(|_| queue.pop().unwrap().0 == 1).count()
    };
    assert_eq!(burst_of(0), 1);
    // The class that was busy is one item past the start of its latest service.
    assert_eq!(burst_of(40), 5);
    assert_eq!(burst_of(90), 10);
}

/// A class whose next item comes when the last one was taken goes idle each time; it must not be
/// given a new burst each time.
#[test]
fn going_idle_after_every_item_forgives_no_debt() {
    let mut queue = FairQueue::new(&[1, 1], 1_000);
    for _ in 0..100 {
        queue.push(0, 10, ());
    }
    queue.push(1, 10, ());
    let mut taken = [0; 2];
    for _ in 0..100 {
        let (class, _, ()) = queue.pop().unwrap();
        taken[class] += 1;
        if class == 1 {
            queue.push(1, 10, ());
        }
    }
    assert_eq!(taken, [50, 50]);
}

#[test]
fn changed_shares_count_from_the_next_item_on() {
    let mut queue = FairQueue::new(&[1, 1], 0);
    for _ in 0..40 {
        queue.push(0, 10, ());
        queue.push(1, 10, ());
    }
    let first = (0..20).filter(|_| queue.pop().unwrap().0 == 0).count();
    queue.set_shares(0, 3);
    let second = (0..20).filter(|_| queue.pop().unwrap().0 == 0).count();
    assert_eq!((first, second), (10, 15));
}

#[test]
#[should_panic(expected = "0 shares")]
fn a_class_without_shares_is_a_programmer_error() {
    let _queue = FairQueue::<()>::new(&[1, 0], 0);
}

#[test]
#[should_panic(expected = "a cost of 0")]
fn a_free_item_is_a_programmer_error() {
    FairQueue::new(&[1], 0).push(0, 0, ());
}

#[test]
#[should_panic(expected = "17 classes")]
fn too_many_classes_are_a_programmer_error() {
    let _queue = FairQueue::<()>::new(&[1; 17], 0);
}
