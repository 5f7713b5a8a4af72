//! What the admin port says of space and recovery, held against what was done.

use std::time::Duration;

use larder_tests::node::{Node, NodeOptions};
use larder_tests::process;
use larder_tests::scratch::Scratch;

const PATIENCE: Duration = Duration::from_secs(60);

const MIB: f64 = 1024.0 * 1024.0;

#[test]
fn the_log_that_a_start_replays_grows_with_writes_and_goes_with_flushes() {
    let scratch = Scratch::new("metrics-recovery");
    let options = NodeOptions::new(scratch.path().join("data"));
    let options = options.with("--compress-from").with("off");
    let node = Node::start(&options);
    assert!(node.metric("larder_recovery_log_bytes") < MIB);
    let mut client = node.client();
    for number in 0..20 {
        let value = vec![b'v'; 500_000];
        assert_eq!(client.set(&format!("key-{number}"), &value).unwrap(), "STORED");
    }
    let bytes = node.metric("larder_recovery_log_bytes");
    assert!((10.0 * MIB * 0.9..20.0 * MIB).contains(&bytes), "{bytes} bytes");
    let seconds = node.metric("larder_recovery_seconds");
    assert_eq!(seconds, bytes / (100.0 * MIB), "the stated rate of a node that replayed nothing");
    node.kill();

    let node = Node::start(&options);
    let after = node.metric("larder_recovery_log_bytes");
    assert!(after >= bytes, "a start has flushed nothing, but {after} bytes are left of {bytes}");
    node.stop();

    // Half of the bound makes a start flush.
    let node = Node::start(&options.with("--recovery-log").with("16M"));
    let is_flushed =
        process::wait_until(PATIENCE, || node.metric("larder_recovery_log_bytes") < MIB);
    assert!(is_flushed, "{} bytes", node.metric("larder_recovery_log_bytes"));
    assert!(node.metric("larder_flushes_total") > 0.0);
    node.stop();
}

#[test]
fn collections_show_and_the_space_stays_within_its_figures() {
    let scratch = Scratch::new("metrics-space");
    let options = NodeOptions::new(scratch.path().join("data"));
    let options = options.with("--compress-from").with("off");
    let options = options.with("--recovery-log").with("8M").with("--disk-limit").with("600M");
    let options = options.with("--scrub-rate").with("1G");
    let node = Node::start(&options);
    assert_eq!(node.metric("larder_disk_limit_bytes"), 600.0 * MIB);
    let allocated_first = node.metric("larder_space_allocated_bytes");
    let mut client = node.client();
    let collected = |node: &Node| {
        node.metric("larder_collections_total") > 0.0
            && node.metric("larder_collected_records_total") > 0.0
            && node.metric("larder_collected_bytes_total") > 0.0
    };
    // One value in ten stays, the others are overwritten: no segment dies as a whole.
    let value = vec![b'v'; 400_000];
    let mut round = 0;
    while !collected(&node) {
        assert!(round < 300, "nothing was collected in {round} rounds");
        assert_eq!(client.set(&format!("stays-{round}"), &value[..200_000]).unwrap(), "STORED");
        for number in 0..5 {
            assert_eq!(client.set(&format!("hot-{number}"), &value).unwrap(), "STORED");
        }
        round += 1;
    }
    assert!(node.metric("larder_space_allocated_bytes") > allocated_first);
    let live = node.metric("larder_space_live_bytes");
    assert!(live >= 200_000.0 && live <= f64::from(round) * 3e6, "{live} in {round} rounds");
    let cap = node.metric("larder_space_cap_bytes");
    assert!(cap >= live, "a cap of {cap} for {live}");
    let (taken, headroom) =
        (node.metric("larder_disk_taken_bytes"), node.metric("larder_disk_headroom_bytes"));
    assert!(taken <= 600.0 * MIB && headroom <= 600.0 * MIB - MIB, "{taken} {headroom}");
    assert_eq!(node.metric("larder_ingest{shard=\"0\",state=\"open\"}"), 1.0);
    assert_eq!(node.metric("larder_ingest{"), 1.0, "one state at a time");
    assert_eq!(node.metric("larder_unreadable_segments"), 0.0);
    let is_scrubbed =
        process::wait_until(PATIENCE, || node.metric("larder_scrub_passes_total") > 0.0);
    assert!(is_scrubbed, "no pass has ended");
    assert!(node.metric("larder_scrub_last_pass_timestamp_seconds") > 1.7e9);
    assert_eq!(node.metric("larder_scrub_damages_total"), 0.0);
    node.stop();

    // The first pass of this node had little to read; that of the next has all of it.
    let node = Node::start(&options);
    let is_read =
        process::wait_until(PATIENCE, || node.metric("larder_scrub_bytes_total") > 4.0 * MIB);
    assert!(is_read, "{} bytes", node.metric("larder_scrub_bytes_total"));
    assert_eq!(node.metric("larder_scrub_damages_total"), 0.0);
    node.stop();
}

#[test]
fn what_compressing_saves_shows() {
    let scratch = Scratch::new("metrics-compression");
    let data = scratch.path().join("data");
    let values = ["words that come again and again, ".repeat(300), "short".to_owned()];
    for (option, compressed) in [("1K", 1.0), ("off", 0.0), ("64K", 0.0)] {
        let options = NodeOptions::new(&data).with("--compress-from").with(option);
        let node = Node::start(&options);
        let mut client = node.client();
        for value in &values {
            let key = format!("key-{}", value.len());
            assert_eq!(client.set(&key, value.as_bytes()).unwrap(), "STORED");
            let found = client.get(&key).unwrap().map(|item| item.value);
            assert_eq!(found.as_deref(), Some(value.as_bytes()));
        }
        assert_eq!(node.metric("larder_compressed_values_total"), compressed);
        let before = node.metric("larder_compressed_before_bytes_total");
        let after = node.metric("larder_compressed_after_bytes_total");
        assert_eq!(before, compressed * values[0].len() as f64);
        assert!(after * 4.0 <= before, "{after} bytes of {before}");
        assert_eq!(node.metric("larder_incompressible_values_total"), 0.0);
        node.stop();
    }
    // A start has what was stored under any of the settings.
    let node = Node::start(&NodeOptions::new(&data));
    let found = node.client().get(&format!("key-{}", values[0].len())).unwrap();
    let found = found.map(|item| item.value);
    assert_eq!(found.as_deref(), Some(values[0].as_bytes()));
    node.stop();
}
