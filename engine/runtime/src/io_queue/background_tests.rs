//! The background beside requests that somebody waits for, in ticks: it has what they leave.

use super::IoQueueOptions;
use super::device_tests::{
    Load, MICROSECOND, Machine, SECOND, all_that_nobody_waits_for, charged, cost, model, reads,
    times, writes,
};
use crate::device_group::DeviceGroup;
use crate::device_model::tokens_of;
use crate::env::IoClass;

/// Reads that come at random, at half of what the figures say, beside work that takes all the rest:
/// their 99th percentile is at most twice what it is alone, unless the device can do no more than
/// its figures say and always has something left to do.
#[test]
fn reads_at_half_of_the_device_hardly_notice_the_background() {
    let slower = times(model(), 1, 2);
    for (real, file, tenths) in [
        (times(model(), 11, 10), model(), 20),
        (times(slower, 11, 10), slower, 20),
        (model(), slower, 20),
        (model(), times(model(), 1, 10), 12),
        (model(), model(), 25),
        (slower, slower, 25),
    ] {
        let half = 4 * SECOND / file.read_iops;
        let run = |others: fn() -> Vec<Load>| {
            let core = |seed| {
                let reads = reads(IoClass::Read, 4_096, 0).at_random(half, seed);
                std::iter::once(reads).chain(others()).collect()
            };
            let machine = Machine::new(real, file, vec![core(1), core(2)]);
            let mut machine = machine.with_channels(8);
            machine.run(SECOND);
            machine.forget();
            let before = charged(&machine, |_| true);
            machine.run(4 * SECOND);
            let p99 = (0..2).map(|core| machine.load(core, 0).p99()).max().expect("two cores");
            (p99, charged(&machine, |_| true) - before)
        };
        let (alone, of_reads) = run(Vec::new);
        let (beside, of_all) = run(all_that_nobody_waits_for);
        assert!(beside * 10 <= alone * tenths, "{file:?}: {beside} ns beside, {alone} alone");
        let (left, others) = (tokens_of(4 * SECOND) - of_reads, of_all - of_reads);
        assert!(others >= left * 9 / 10, "{file:?}: {others} of {left}");
    }
}

/// A core whose clients take all of the device does not stop the work of another core, nor its own.
#[test]
fn reads_that_take_the_whole_device_leave_the_background_a_part() {
    let clients = || reads(IoClass::Read, 4_096, 256);
    let merge = || reads(IoClass::Compaction, 128 << 10, 4);
    for others in [vec![merge()], vec![clients(), merge()]] {
        let is_alone = others.len() == 1;
        let mut machine = Machine::new(model(), model(), vec![vec![clients()], others]);
        machine.run(SECOND);
        let merges = charged(&machine, |class| class == IoClass::Compaction);
        let all = charged(&machine, |_| true);
        let least = all / if is_alone { 12 } else { 30 };
        assert!(merges >= least, "{merges} of {all}, alone on its core: {is_alone}");
    }
}

/// Nothing is kept for reads that nobody asks for: work alone has the whole device, whether it asks
/// for long requests one by one, and whether its core looks at its queue all the time or seldom.
#[test]
fn the_background_alone_has_the_whole_device() {
    for (load, turn, percent) in [
        (reads(IoClass::Scan, 16 << 10, 64), 0, 97),
        (reads(IoClass::Scan, 16 << 10, 64), 400, 95),
        (writes(IoClass::Compaction, 128 << 10, 2), 0, 95),
    ] {
        let class = load.request.class;
        let mut machine = Machine::new(model(), model(), vec![vec![load]]);
        machine.cores[0].turn = turn * MICROSECOND;
        machine.run(SECOND);
        let used = cost(machine.load(0, 0)) * 100 / tokens_of(SECOND);
        assert!(used >= percent, "{class:?} in turns of {turn} us: {used} % of the device");
    }
    // One request at a time has to wait only for the device.
    let mut machine =
        Machine::new(model(), model(), vec![vec![writes(IoClass::Flush, 128 << 10, 1)]]);
    machine.run(SECOND);
    let waited = machine.cores[0].queue.class_statistics(IoClass::Flush, SECOND);
    let mean = waited.queue_nanoseconds / waited.dispatched;
    assert!(mean <= 20 * MICROSECOND, "{mean} ns, of {} requests", waited.dispatched);
}

/// Cores share what is left by the device's time, whatever their requests are like and however
/// often they look at their queues.
#[test]
fn cores_with_unlike_work_share_what_is_left() {
    let (short, long) = (16 << 10, 128 << 10);
    for (bytes, turns) in [([short, long], [0, 0]), ([short, short], [200, 0])] {
        let load = |bytes| vec![reads(IoClass::Scan, bytes, 64)];
        let mut machine = Machine::new(model(), model(), bytes.map(load).into());
        for (core, turn) in machine.cores.iter_mut().zip(turns) {
            core.turn = turn * MICROSECOND;
        }
        machine.run(SECOND);
        let [first, second] = [0, 1].map(|core| cost(machine.load(core, 0)));
        let least = first.min(second) * 100 / (first + second);
        assert!(least >= 25, "{bytes:?} in turns of {turns:?} us: {first} and {second}");
    }
}

/// Reads that their cap keeps out are no reason for a core's merges to stand before the reads of
/// another core.
#[test]
fn reads_that_may_not_go_do_not_bring_the_background_forward() {
    let half = 4 * SECOND / model().read_iops;
    let p99 = |cap| {
        let group = DeviceGroup::new(model(), 2);
        let mut options = IoQueueOptions { device: Some(group), ..IoQueueOptions::default() };
        options.bandwidth_max[IoClass::Read as usize] = cap;
        let capped = vec![reads(IoClass::Read, 4_096, 64), reads(IoClass::Compaction, 65_536, 8)];
        let others = vec![reads(IoClass::Read, 4_096, 0).at_random(half, 7)];
        let mut machine = Machine::with_options(model(), &options, vec![capped, others]);
        machine.cores[1].queue.set_class(IoClass::Read, None, Some(None), 0).expect("no cap");
        machine.run(2 * SECOND);
        machine.load(1, 0).p99()
    };
    let (capped, free) = (p99(Some(1 << 20)), p99(None));
    assert!(capped < free, "{capped} ns beside a core with a cap, {free} without");
}

/// That reads are quick while the background waits for tokens does not show that the device can do
/// more than its figures say, on the core of the reads or another.
#[test]
fn right_figures_are_not_taken_for_too_low_ones() {
    for (part, is_on_both) in [(4, true), (2, true), (4, false)] {
        let interval = 2 * part * SECOND / model().read_iops;
        let core = |seed| {
            let reads = reads(IoClass::Read, 4_096, 0).at_random(interval, seed);
            std::iter::once(reads).chain(all_that_nobody_waits_for()).collect()
        };
        let real = times(model(), 11, 10);
        let second = if is_on_both { core(2) } else { all_that_nobody_waits_for() };
        let mut machine = Machine::new(real, model(), vec![core(1), second]).with_channels(8);
        machine.run(40 * SECOND);
        let allowed = [0, 1].map(|core| machine.allowed(core));
        assert_eq!(allowed, [1000, 1000], "reads for a {part}th of the device");
    }
}
