//! Disks without room for the manifest.

use super::*;

/// Appends until the next edit would start a new file; the edits that are left.
fn grown(disk: &mut TestDisk, seed: u64) -> (Manifest<SimEnv>, Vec<(Edit, State)>) {
    let mut manifest = new_shard(disk, SMALL);
    let mut left = history(60, seed);
    while !manifest.log.is_long() {
        let (edit, state) = left.remove(0);
        disk.run(manifest.append(&edit, &state)).expect("appends");
    }
    (manifest, left)
}

/// What is done to a disk so that the manifest gets no more space, and how that is ended.
type Fill = (fn(&TestDisk), fn(&TestDisk));

const FILLS: [Fill; 3] = [
    (|disk| disk.set_free(0), |disk| disk.set_free(1 << 30)),
    (|disk| disk.set_free(8 << 10), |disk| disk.set_free(1 << 30)),
    (TestDisk::use_quota_up, TestDisk::set_honest),
];

#[test]
fn where_no_new_file_fits_the_old_one_goes_on() {
    for (number, (fill, relieve)) in FILLS.into_iter().enumerate() {
        let mut disk = TestDisk::new();
        let (mut manifest, left) = grown(&mut disk, 5);
        let before = manifest.superblock();
        fill(&disk);
        let mut last = None;
        let mut refused = None;
        for (edit, state) in left {
            match disk.run(manifest.append(&edit, &state)) {
                Ok(()) => {
                    assert_eq!(reopened(&mut disk.duplicate()).expect("opens"), state);
                    assert_eq!(reopened(&mut disk.crash(9)).expect("opens"), state);
                    last = Some(state);
                }
                Err(ManifestError::Full { .. }) => {
                    refused = Some((edit, state));
                    break;
                }
                Err(error) => panic!("fill {number}: {error}"),
            }
            let names = [log::file_name(before.manifest_number), SUPERBLOCK_FILE.to_owned()];
            assert_eq!(disk.names(), names, "nothing of a new file stays");
        }
        assert_eq!(manifest.superblock(), before);
        let last = last.expect("the old file had some room");
        let (edit, state) = refused.expect("the old file ends");
        // It may be tried again as often as one likes, and changes nothing.
        let again = disk.run(manifest.append(&edit, &state));
        assert!(matches!(again, Err(ManifestError::Full { .. })), "{again:?}");
        assert_eq!(reopened(&mut disk.duplicate()).expect("opens"), last);
        relieve(&disk);
        disk.run(manifest.append(&edit, &state)).expect("there is space");
        assert!(manifest.superblock().manifest_number > before.manifest_number);
        assert_eq!(reopened(&mut disk.crash(3)).expect("opens"), state);
    }
}

#[test]
fn a_crash_while_no_new_file_fits_loses_nothing() {
    for seed in 0..4 {
        for changes in 0.. {
            let mut disk = TestDisk::new();
            let (mut manifest, left) = grown(&mut disk, seed);
            let (edit, state) = &left[0];
            let mut before = reopened(&mut disk.duplicate()).expect("opens");
            disk.set_free(4096);
            disk.crash_at(disk.changes() + changes);
            let appended = disk.run_to_crash(manifest.append(edit, state));
            let is_over = appended.is_some();
            if let Some(appended) = appended {
                appended.expect("the old file has room");
                before = state.clone();
            }
            let found = reopened(&mut disk.crash(seed)).expect("opens");
            assert!(found == before || found == *state, "seed {seed}, change {changes}");
            if is_over {
                assert!(changes > 2, "the append hardly changes anything");
                break;
            }
        }
    }
}
