//! What has become of the cores' time.

use std::fmt::Display;

use larder_runtime::env::TaskQueue;

use super::{Exposition, NANOSECONDS, Type};
use crate::counters::CoreReport;

pub(super) fn put(out: &mut Exposition, reports: &[CoreReport]) {
    use Type::{Counter, Gauge};
    const CPU: &str = "larder_cpu_seconds_total";
    let help = "Time by what the core did: tasks of a queue, in foreground also all that is done \
                for connections without a task; spin and idle are the rest.";
    out.family(CPU, Counter, help);
    for report in reports {
        let cpu = &report.time.cpu;
        let queues = TaskQueue::ALL.map(|queue| (queue.name(), cpu.queues[queue as usize]));
        let rest = [("spin", cpu.spinning), ("idle", cpu.idle)];
        for (class, nanoseconds) in queues.into_iter().chain(rest) {
            let labels: [(&str, &dyn Display); 2] = [("core", &report.core), ("class", &class)];
            out.sample(CPU, &labels, nanoseconds as f64 / NANOSECONDS);
        }
    }
    let mut by_queue = |name: &str, kind, help: &str, value: fn(&CoreReport, usize) -> u64| {
        out.family(name, kind, help);
        for report in reports {
            for queue in TaskQueue::ALL {
                let labels: [(&str, &dyn Display); 2] =
                    [("core", &report.core), ("class", &queue.name())];
                out.sample(name, &labels, value(report, queue as usize));
            }
        }
    };
    let help = "Shares of the core that tasks have now; those of background work rise as it falls \
                behind.";
    by_queue("larder_task_shares", Gauge, help, |report, queue| {
        u64::from(report.time.task_shares[queue])
    });
    let help = "Times that something held the core for longer than --stall-bound.";
    by_queue("larder_stalls_total", Counter, help, |report, queue| {
        report.time.stalls.counts[queue]
    });
    let help = "The longest time that something held the core beyond --stall-bound.";
    let longest = ("larder_stall_longest_seconds", Gauge, help);
    out.by_core(reports, longest, |report| report.time.stalls.longest as f64 / NANOSECONDS);
}
