//! Model checks: every interleaving of two cores that promise, keep and give back.

use loom::thread;

use super::DiskBudget;

#[test]
fn loom_two_cores_never_take_the_same_bytes() {
    loom::model(|| {
        let budget = DiskBudget::new(Some(100));
        let other = {
            let budget = budget.clone();
            thread::spawn(move || {
                let promise = DiskBudget::promise(&budget, 60, 0, || Ok(1000)).expect("free");
                let served = promise.is_some();
                if let Some(promise) = promise {
                    promise.keep(60);
                }
                served
            })
        };
        let mine = DiskBudget::promise(&budget, 60, 0, || Ok(1000)).expect("free");
        let theirs = other.join().expect("ends");
        assert!(mine.is_some() != theirs, "one fits, and one is served");
        drop(mine);
        assert_eq!(budget.taken(), if theirs { 60 } else { 0 });
    });
}

#[test]
fn loom_free_bytes_are_never_promised_twice() {
    loom::model(|| {
        let budget = DiskBudget::new(None);
        let other = {
            let budget = budget.clone();
            thread::spawn(move || DiskBudget::promise(&budget, 60, 0, || Ok(100)).expect("free"))
        };
        let mine = DiskBudget::promise(&budget, 60, 0, || Ok(100)).expect("free");
        let theirs = other.join().expect("ends");
        assert!(!(mine.is_some() && theirs.is_some()));
        drop((mine, theirs));
        assert_eq!((budget.taken(), budget.headroom(100)), (0, 100));
    });
}
