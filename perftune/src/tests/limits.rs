//! Limits of processes: none is written that would keep people from logging in.

use super::builder::TreeBuilder;
use crate::machine::{LIMITS_FILE, UNIT_LIMITS_FILE};
use crate::options::TuneOptions;
use crate::plan::{TunePlan, decide};

const ALLOWED: &str = "/proc/sys/fs/nr_open";

fn planned(builder: TreeBuilder) -> TunePlan {
    decide(&builder.build().machine(), &TuneOptions::default()).expect("a plan")
}

/// What a plan writes to a file.
fn content<'a>(plan: &'a TunePlan, path: &str) -> &'a str {
    let setting = plan.settings.iter().find(|setting| setting.path == path);
    &setting.expect("it is set").value
}

#[test]
fn no_limit_of_descriptors_is_higher_than_the_kernel_allows() {
    let machine = || TreeBuilder::new(1, 2, 1).systemd();
    for (allowed, written) in [("65536", "65536"), ("1048576", "1048576"), ("9999999", "1048576")] {
        let plan = planned(machine().with(ALLOWED, allowed));
        let limits = content(&plan, LIMITS_FILE);
        for line in [format!("@larder - nofile {written}\n"), format!("root - nofile {written}\n")]
        {
            assert!(limits.contains(&line), "{allowed}: {limits}");
        }
        let unit = content(&plan, UNIT_LIMITS_FILE);
        assert!(unit.contains(&format!("LimitNOFILE={written}\n")), "{allowed}: {unit}");
        let is_noted = plan.notes.iter().any(|note| note.contains("fs.nr_open is 65536"));
        assert_eq!(is_noted, allowed == "65536", "{:?}", plan.notes);
        // Raised until the next start only, it would make the same limits too high after that.
        assert!(plan.settings.iter().all(|setting| setting.path != ALLOWED));
    }
}

#[test]
fn without_knowing_what_the_kernel_allows_no_limit_of_descriptors_is_written() {
    for text in ["", "many"] {
        let plan = planned(TreeBuilder::new(1, 2, 1).systemd().with(ALLOWED, text));
        for path in [LIMITS_FILE, UNIT_LIMITS_FILE] {
            let limits = content(&plan, path).to_lowercase();
            assert!(limits.contains("memlock") && !limits.contains("nofile"), "{limits}");
        }
        assert!(plan.notes.iter().any(|note| note.contains(ALLOWED)), "{:?}", plan.notes);
    }
}

#[test]
fn not_everybody_may_lock_memory() {
    let plan = planned(TreeBuilder::new(1, 2, 1).systemd());
    let limits = content(&plan, LIMITS_FILE);
    assert!(limits.lines().all(|line| !line.starts_with('*')), "{limits}");
}
