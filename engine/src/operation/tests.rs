use super::*;
use crate::entry::state::{STALE, WIN_SENT};

mod every_case;

const NEXT: u64 = 100;
const CONTEXT: Context = Context { version_next: NEXT, value_bytes_max: 64 };

/// An item of version 50 with flags 3 and an expiry.
fn item(value: &[u8]) -> Current<'_> {
    let metadata = Metadata { version: 50, client_flags: 3, expiry: 9000, state: 0 };
    Current { metadata, value }
}

fn with_state(value: &[u8], state: u8) -> Current<'_> {
    let current = item(value);
    Current { metadata: Metadata { state, ..current.metadata }, ..current }
}

fn store(mode: StoreMode) -> Store<'static> {
    Store {
        mode,
        value: b"new",
        client_flags: 7,
        expiry: 8000,
        compare: None,
        invalidate: false,
        is_large: false,
        vivify: None,
        version: None,
    }
}

fn decide_on<'a>(current: Option<Current<'_>>, store: Store<'a>) -> Decision<'a> {
    decide(current, &Operation::Store(store), CONTEXT)
}

fn put(metadata: Metadata, value: &'static [u8]) -> Effect<'static> {
    Effect::Put(metadata, Cow::Borrowed(value))
}

const STORED: Metadata = Metadata { version: NEXT, client_flags: 7, expiry: 8000, state: 0 };

#[test]
fn modes_look_at_whether_there_is_an_item() {
    use Outcome::{NotStored, Stored};
    for (mode, missing, there) in [
        (StoreMode::Set, Stored, Stored),
        (StoreMode::Add, Stored, NotStored),
        (StoreMode::Replace, NotStored, Stored),
        (StoreMode::Append, NotStored, Stored),
        (StoreMode::Prepend, NotStored, Stored),
    ] {
        for (current, expected) in [(None, missing), (Some(item(b"old")), there)] {
            let decision = decide_on(current, store(mode));
            assert_eq!(decision.outcome, expected, "{mode:?} {current:?}");
            let changes = decision.effect != Effect::None;
            assert_eq!(changes, expected == Stored, "{mode:?} {current:?}");
        }
    }
}

#[test]
fn set_add_and_replace_store_all_that_was_given() {
    for (mode, current) in [
        (StoreMode::Set, None),
        (StoreMode::Set, Some(with_state(b"old", STALE | WIN_SENT))),
        (StoreMode::Add, None),
        (StoreMode::Replace, Some(item(b"old"))),
    ] {
        let decision = decide_on(current, store(mode));
        assert_eq!(decision.effect, put(STORED, b"new"), "{mode:?}");
        assert_eq!(decision.metadata, STORED);
    }
}

#[test]
fn append_and_prepend_keep_flags_and_expiry() {
    let kept = Metadata { version: NEXT, client_flags: 3, expiry: 9000, state: 0 };
    let appended = decide_on(Some(item(b"old")), store(StoreMode::Append));
    assert_eq!(appended.effect, put(kept, b"oldnew"));
    let prepended = decide_on(Some(item(b"old")), store(StoreMode::Prepend));
    assert_eq!(prepended.effect, put(kept, b"newold"));
    // Storing makes an item fresh.
    let stale = decide_on(Some(with_state(b"old", STALE | WIN_SENT)), store(StoreMode::Append));
    assert_eq!(stale.metadata.state, 0);
}

#[test]
fn append_and_prepend_create_an_item_when_asked_to() {
    for mode in [StoreMode::Append, StoreMode::Prepend] {
        let decision = decide_on(None, Store { vivify: Some(77), ..store(mode) });
        assert_eq!(decision.outcome, Outcome::Stored);
        assert_eq!(decision.effect, put(Metadata { expiry: 77, ..STORED }, b"new"));
    }
}

#[test]
fn comparing_lets_only_the_version_seen_through() {
    use Outcome::{Exists, NotFound, NotStored, Stored};
    for (mode, compare, missing, there) in [
        (StoreMode::Set, 50, NotFound, Stored),
        (StoreMode::Set, 49, NotFound, Exists),
        (StoreMode::Set, 51, NotFound, Exists),
        (StoreMode::Replace, 50, NotFound, Stored),
        (StoreMode::Replace, 51, NotFound, Exists),
        (StoreMode::Append, 50, NotStored, Stored),
        (StoreMode::Append, 51, NotStored, Exists),
        (StoreMode::Prepend, 49, NotStored, Exists),
        (StoreMode::Add, 50, Stored, NotStored),
    ] {
        for (current, expected) in [(None, missing), (Some(item(b"old")), there)] {
            let decision = decide_on(current, Store { compare: Some(compare), ..store(mode) });
            assert_eq!(decision.outcome, expected, "{mode:?} {compare} {current:?}");
            assert_eq!(decision.effect != Effect::None, expected == Stored);
            if expected == Exists {
                assert_eq!(decision.metadata.version, 50, "the version in the way is shown");
            }
        }
    }
}

#[test]
fn invalidating_takes_an_older_version_as_stale() {
    let invalidate = |compare, state| {
        let store = Store { compare: Some(compare), invalidate: true, ..store(StoreMode::Set) };
        decide_on(Some(with_state(b"old", state)), store)
    };
    let older = invalidate(49, 0);
    // The item keeps its expiry, so that it does not live longer than it would have.
    let stale = Metadata { expiry: 9000, state: STALE, ..STORED };
    assert_eq!((older.outcome, older.effect), (Outcome::Stored, put(stale, b"new")));
    assert_eq!(invalidate(49, WIN_SENT).metadata.state, STALE | WIN_SENT);
    assert_eq!(invalidate(50, STALE).effect, put(STORED, b"new"));
    let newer = invalidate(51, 0);
    assert_eq!((newer.outcome, newer.effect), (Outcome::Exists, Effect::None));
}

#[test]
fn a_version_that_is_given_is_taken() {
    let given = Store { version: Some(9), ..store(StoreMode::Set) };
    assert_eq!(decide_on(None, given).metadata.version, 9);
    let given = Store { version: Some(9), ..store(StoreMode::Append) };
    assert_eq!(decide_on(Some(item(b"old")), given).metadata.version, 9);
}

#[test]
fn values_over_the_limit_are_refused() {
    let long = [0; 65];
    for mode in [StoreMode::Set, StoreMode::Add, StoreMode::Replace] {
        for current in [None, Some(item(b"old"))] {
            let decision = decide_on(current, Store { value: &long, ..store(mode) });
            assert_eq!((decision.outcome, decision.effect), (Outcome::TooLarge, Effect::None));
        }
    }
    let half = [0; 40];
    let sum = decide_on(Some(item(&half)), Store { value: &half, ..store(StoreMode::Append) });
    assert_eq!((sum.outcome, sum.effect), (Outcome::TooLarge, Effect::None));
    let fits =
        decide_on(Some(item(&half)), Store { value: &half[..24], ..store(StoreMode::Append) });
    assert_eq!(fits.outcome, Outcome::Stored);
}

#[test]
fn an_item_stored_as_expired_is_none() {
    let expired = Store { expiry: EXPIRED, ..store(StoreMode::Set) };
    for current in [None, Some(item(b"old"))] {
        let decision = decide_on(current, expired);
        assert_eq!((decision.outcome, decision.effect), (Outcome::Stored, Effect::Remove));
    }
}

fn arithmetic(delta: u64, decrement: bool) -> Arithmetic {
    Arithmetic { delta, decrement, compare: None, vivify: None, expiry: None, version: None }
}

fn count(value: &[u8], arithmetic: Arithmetic) -> (Outcome, Option<Vec<u8>>) {
    let decision = decide(Some(item(value)), &Operation::Arithmetic(arithmetic), CONTEXT);
    match decision.effect {
        Effect::Put(metadata, value) => {
            assert_eq!(metadata, Metadata { version: NEXT, ..item(b"").metadata });
            (decision.outcome, Some(value.into_owned()))
        }
        Effect::None => (decision.outcome, None),
        other => panic!("{other:?}"),
    }
}

#[test]
fn increments_wrap_and_decrements_stop_at_zero() {
    let max = u64::MAX.to_string();
    for (value, delta, decrement, expected) in [
        ("5", 3, false, 8),
        (max.as_str(), 1, false, 0),
        (max.as_str(), 3, false, 2),
        ("5", 3, true, 2),
        ("5", 5, true, 0),
        ("5", 6, true, 0),
        ("0", u64::MAX, true, 0),
        ("10", 1, true, 9),
        ("9 ", 1, false, 10),
        ("007", 1, false, 8),
    ] {
        let counted = count(value.as_bytes(), arithmetic(delta, decrement));
        let stored = expected.to_string().into_bytes();
        assert_eq!(counted, (Outcome::Number(expected), Some(stored)), "{value:?} {delta}");
    }
}

#[test]
fn only_decimal_numbers_of_64_bits_can_be_counted() {
    for value in ["", " ", "x", "-1", "+1", "1.5", "1x", " 1", "18446744073709551616", "1 2"] {
        let counted = count(value.as_bytes(), arithmetic(1, false));
        assert_eq!(counted, (Outcome::NotNumeric, None), "{value:?}");
    }
    let long = "0".repeat(21);
    assert_eq!(count(long.as_bytes(), arithmetic(1, false)).0, Outcome::NotNumeric);
}

#[test]
fn a_missing_number_is_created_when_asked_to() {
    let missing = |arithmetic| decide(None, &Operation::Arithmetic(arithmetic), CONTEXT);
    let refused = missing(arithmetic(1, false));
    assert_eq!((refused.outcome, refused.effect), (Outcome::NotFound, Effect::None));
    let created = missing(Arithmetic { vivify: Some((42, 77)), ..arithmetic(1, false) });
    assert_eq!(created.outcome, Outcome::Number(42), "the initial value, not counted up");
    let metadata = Metadata { version: NEXT, client_flags: 0, expiry: 77, state: 0 };
    assert_eq!(created.effect, put(metadata, b"42"));
}

#[test]
fn counting_compares_and_sets_the_expiry() {
    let differs = Arithmetic { compare: Some(49), ..arithmetic(1, false) };
    assert_eq!(count(b"5", differs), (Outcome::Exists, None));
    let matching = Arithmetic { compare: Some(50), ..arithmetic(1, false) };
    assert_eq!(count(b"5", matching).0, Outcome::Number(6));
    let expiry = Arithmetic { expiry: Some(5), ..arithmetic(1, false) };
    let decision = decide(Some(item(b"5")), &Operation::Arithmetic(expiry), CONTEXT);
    assert_eq!(decision.metadata.expiry, 5);
}

fn read_on(current: Option<Current<'_>>, read: Read) -> Decision<'static> {
    decide(current, &Operation::Read(read), CONTEXT)
}

#[test]
fn a_plain_read_changes_nothing() {
    let hit = read_on(Some(item(b"old")), Read { value: true, ..Read::default() });
    assert_eq!((hit.outcome, hit.effect), (Outcome::Hit, Effect::None));
    assert_eq!((hit.metadata, hit.lease), (item(b"").metadata, Lease::default()));
    let miss = read_on(None, Read { value: true, ..Read::default() });
    assert_eq!((miss.outcome, miss.effect), (Outcome::Miss, Effect::None));
}

#[test]
fn touching_changes_the_expiry_and_nothing_else() {
    let touch = Read { expiry: Some(5), ..Read::default() };
    let touched = Metadata { expiry: 5, ..item(b"").metadata };
    let decision = read_on(Some(item(b"old")), touch);
    assert_eq!((decision.outcome, decision.effect), (Outcome::Hit, Effect::Remark(touched)));
    assert_eq!(decision.metadata, touched);
    let same = Read { expiry: Some(9000), ..Read::default() };
    assert_eq!(read_on(Some(item(b"old")), same).effect, Effect::None);
    assert_eq!(read_on(None, touch).outcome, Outcome::Miss);
}

#[test]
fn one_reader_of_a_missing_item_wins_and_the_others_are_told() {
    let read = Read { vivify: Some(77), leases: true, ..Read::default() };
    let first = read_on(None, read);
    let lease = Lease { won: true, stale: false, already_sent: false };
    assert_eq!((first.outcome, first.lease), (Outcome::Hit, lease));
    let created = Metadata { version: NEXT, client_flags: 0, expiry: 77, state: WIN_SENT };
    assert_eq!(first.effect, put(created, b""));
    let second = read_on(Some(Current { metadata: created, value: b"" }), read);
    let lease = Lease { won: false, stale: false, already_sent: true };
    assert_eq!((second.lease, second.effect), (lease, Effect::None));
}

#[test]
fn one_reader_of_a_stale_item_wins() {
    let read = Read { leases: true, ..Read::default() };
    let first = read_on(Some(with_state(b"old", STALE)), read);
    assert_eq!(first.lease, Lease { won: true, stale: true, already_sent: false });
    assert_eq!(first.metadata.state, STALE | WIN_SENT);
    assert_eq!(first.effect, Effect::Remark(first.metadata));
    let second = read_on(Some(with_state(b"old", STALE | WIN_SENT)), read);
    assert_eq!(second.lease, Lease { won: false, stale: true, already_sent: true });
    assert_eq!(second.effect, Effect::None);
    // Classic reads neither win nor are told.
    let classic = read_on(Some(with_state(b"old", STALE)), Read::default());
    assert_eq!((classic.lease, classic.effect), (Lease::default(), Effect::None));
}

#[test]
fn one_reader_wins_an_item_that_is_about_to_expire() {
    let read = |limit| Read { leases: true, recache_before: Some(limit), ..Read::default() };
    assert!(!read_on(Some(item(b"old")), read(9000)).lease.won);
    let soon = read_on(Some(item(b"old")), read(9001));
    assert!(soon.lease.won && !soon.lease.stale);
    assert_eq!(soon.metadata.state, WIN_SENT);
    let sent = read_on(Some(with_state(b"old", WIN_SENT)), read(9001));
    assert_eq!(sent.lease, Lease { won: false, stale: false, already_sent: true });
    let current = item(b"old");
    let forever = Current { metadata: Metadata { expiry: 0, ..current.metadata }, ..current };
    assert!(!read_on(Some(forever), read(u32::MAX)).lease.won);
}

fn delete_on(current: Option<Current<'_>>, delete: Delete) -> Decision<'static> {
    decide(current, &Operation::Delete(delete), CONTEXT)
}

#[test]
fn deleting_needs_an_item_of_the_version_compared() {
    let missing = delete_on(None, Delete::default());
    assert_eq!((missing.outcome, missing.effect), (Outcome::NotFound, Effect::None));
    let deleted = delete_on(Some(item(b"old")), Delete::default());
    assert_eq!((deleted.outcome, deleted.effect), (Outcome::Deleted, Effect::Remove));
    for (compare, outcome) in [(50, Outcome::Deleted), (49, Outcome::Exists), (51, Outcome::Exists)]
    {
        let delete = Delete { compare: Some(compare), ..Delete::default() };
        let decision = delete_on(Some(item(b"old")), delete);
        assert_eq!(decision.outcome, outcome, "{compare}");
        assert_eq!(decision.effect == Effect::Remove, outcome == Outcome::Deleted);
    }
}

#[test]
fn invalidating_marks_the_item_and_lets_the_next_reader_win() {
    let delete = Delete { invalidate: true, expiry: Some(30), ..Delete::default() };
    let decision = delete_on(Some(with_state(b"old", WIN_SENT)), delete);
    let marked = Metadata { version: NEXT, client_flags: 3, expiry: 30, state: STALE };
    assert_eq!((decision.outcome, decision.effect), (Outcome::Deleted, Effect::Remark(marked)));
    let keeps = delete_on(Some(item(b"old")), Delete { invalidate: true, ..Delete::default() });
    assert_eq!(keeps.metadata.expiry, 9000);
    let given = Delete { invalidate: true, version: Some(9), ..Delete::default() };
    assert_eq!(delete_on(Some(item(b"old")), given).metadata.version, 9);
}

#[test]
fn clearing_empties_the_value_and_the_flags() {
    let delete = Delete { clear_value: true, ..Delete::default() };
    let decision = delete_on(Some(item(b"old")), delete);
    let cleared = Metadata { version: NEXT, client_flags: 0, expiry: 9000, state: 0 };
    assert_eq!((decision.outcome, decision.effect), (Outcome::Deleted, put(cleared, b"")));
    let both = Delete { invalidate: true, ..delete };
    let decision = delete_on(Some(item(b"old")), both);
    assert_eq!(decision.effect, put(Metadata { state: STALE, ..cleared }, b""));
}

#[test]
fn an_operation_asks_for_no_more_than_it_needs() {
    let need = |operation: Operation<'_>| operation.need();
    assert_eq!(need(Operation::Store(store(StoreMode::Set))), Need::Nothing);
    let compared = Store { compare: Some(1), ..store(StoreMode::Set) };
    assert_eq!(need(Operation::Store(compared)), Need::Metadata);
    assert_eq!(need(Operation::Store(store(StoreMode::Add))), Need::Metadata);
    assert_eq!(need(Operation::Store(store(StoreMode::Append))), Need::Value);
    assert_eq!(need(Operation::Delete(Delete::default())), Need::Metadata);
    assert_eq!(need(Operation::Read(Read::default())), Need::Metadata);
    assert_eq!(need(Operation::Read(Read { value: true, ..Read::default() })), Need::Value);
    assert_eq!(need(Operation::Arithmetic(arithmetic(1, true))), Need::Value);
    assert!(!Operation::Read(Read::default()).may_write());
    for read in [
        Read { expiry: Some(1), ..Read::default() },
        Read { vivify: Some(1), ..Read::default() },
        Read { leases: true, ..Read::default() },
    ] {
        assert!(Operation::Read(read).may_write());
    }
}
