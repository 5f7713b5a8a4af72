//! The tests of the tests: each deliberate defect of the node must be noticed within a few seeds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::run;
use crate::canary::{self, NodeDefect};

const SEEDS_MAX: u64 = 100;

/// Fails unless a run fails with some seed while the node has `defect`, and passes with the same
/// seed without it.
fn must_be_noticed(defect: NodeDefect) {
    let passes = |seed: u64, is_faulty: bool| {
        let _switched = is_faulty.then(|| canary::with(defect));
        catch_unwind(AssertUnwindSafe(|| drop(run(seed, false)))).is_ok()
    };
    let seed = (1..=SEEDS_MAX).find(|seed| !passes(*seed, true));
    eprintln!("{defect:?}: noticed by seed {seed:?}");
    let seed = seed.unwrap_or_else(|| panic!("{defect:?} goes unnoticed"));
    assert!(passes(seed, false), "seed {seed} fails without {defect:?} as well");
}

#[test]
fn an_answer_under_the_id_of_another_request_is_noticed() {
    must_be_noticed(NodeDefect::OtherRequestId);
}

#[test]
fn an_item_that_is_lost_between_cores_is_noticed() {
    must_be_noticed(NodeDefect::LoseLastPart);
}

#[test]
fn an_answer_that_is_dropped_where_the_output_is_full_is_noticed() {
    must_be_noticed(NodeDefect::DropWhereFull);
}

#[test]
fn a_value_that_is_freed_before_it_is_sent_is_noticed() {
    must_be_noticed(NodeDefect::FreeBeforeSent);
}

#[test]
fn an_answer_to_the_next_connection_with_a_number_is_noticed() {
    must_be_noticed(NodeDefect::AnswerTheNext);
}

#[test]
fn answers_in_another_order_than_the_protocols_are_noticed() {
    must_be_noticed(NodeDefect::Overtake);
}
