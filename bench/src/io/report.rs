//! The summary in words.

use std::fmt::Write;

use super::summary::{ComeBack, IoBenchSummary, WaitSpread};
use crate::engine::bytes;

/// What is printed of a summary.
pub(crate) fn describe(summary: &IoBenchSummary) -> String {
    let IoBenchSummary { settings, .. } = summary;
    let mut text = format!(
        "{} cores on {}, requests of {}, {} of each class at a time on each core, {:.1} s a part\n",
        settings.cores,
        settings.directory.display(),
        bytes(settings.length),
        settings.depth,
        settings.duration.as_secs_f64(),
    );
    let mut line = |line: String| writeln!(text, "{line}").expect("a text takes all");
    line("all classes ask for more than there is:".to_owned());
    for class in &summary.classes {
        line(format!(
            "  {:<18} {:>5} shares: {:>7.0} requests/s, {}/s, {:.1} % of the disk, {:.3} of its \
             part by shares",
            class.class,
            class.shares,
            class.requests_per_second,
            bytes(class.bytes_per_second as u64),
            class.device * 100.0,
            class.of_due,
        ));
    }
    line(format!(
        "  shares are kept within {:.1} % of each other (asked: 5 %)",
        summary.deviation * 100.0
    ));
    let cores: Vec<String> =
        summary.cores.iter().map(|core| format!("{:.1} %", core * 100.0)).collect();
    let verdict = if summary.device_used <= summary.device_bound { "within" } else { "beyond" };
    line(format!(
        "  of the disk's time all were charged {:.2} %, {verdict} the model's {:.2} %; the cores: \
         {}",
        summary.device_used * 100.0,
        summary.device_bound * 100.0,
        cores.join(", "),
    ));
    line(format!("  at {:.2}x the price of its figures", summary.price));
    if summary.background_allowed < 1.0 {
        line(format!(
            "  what nobody waits for was held back to {:.1} %, whatever its shares: reads took \
             longer than the goal",
            summary.background_allowed * 100.0
        ));
    }
    line(format!(
        "one class comes back from idleness, the others ask for all (asked: at most {:.0} us):",
        summary.latency_goal_us
    ));
    summary.come_back.iter().for_each(|class| line(come_back(class)));
    text
}

fn come_back(class: &ComeBack) -> String {
    let spread = |WaitSpread { p50_us, p99_us, max_us }: WaitSpread| {
        format!("p50 {p50_us:.0} p99 {p99_us:.0} max {max_us:.0} us")
    };
    format!(
        "  {:<18} {} times: waits for its turn {}, longer than asked {:.2} %; then in the device \
         {}",
        class.class,
        class.times,
        spread(class.waited),
        class.late * 100.0,
        spread(class.in_device),
    )
}
