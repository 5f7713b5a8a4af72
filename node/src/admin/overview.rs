//! The page for people: it looks at the metrics every second and draws them. Without scripts it is
//! a short table.

use super::metrics::shards;
use crate::counters::CoreReport;
use crate::facts::Facts;
use crate::process::VERSION;
use larder_engine::shard::Statistics;

const PAGE: &str = include_str!("overview.html");
/// Where the table's rows go.
const ROWS: &str = "<!--rows-->";

/// The page, as it is at Unix second `now`.
pub(super) fn page(facts: &Facts, reports: &[CoreReport], now: u64) -> String {
    PAGE.replacen(ROWS, &rows(facts, reports, now), 1)
}

fn rows(facts: &Facts, reports: &[CoreReport], now: u64) -> String {
    let sum = |value: fn(&Statistics) -> u64| -> u64 {
        shards(reports).map(|shard| value(&shard.statistics)).sum()
    };
    let connections: usize = reports.iter().map(|report| report.connections).sum();
    format!(
        "<tr><td>version</td><td>{VERSION}</td></tr>\n\
         <tr><td>uptime</td><td>{} s</td></tr>\n\
         <tr><td>cores</td><td>{}</td></tr>\n\
         <tr><td>shards</td><td>{}</td></tr>\n\
         <tr><td>connections</td><td>{connections}</td></tr>\n\
         <tr><td>reads</td><td>{}</td></tr>\n\
         <tr><td>writes</td><td>{}</td></tr>",
        now.saturating_sub(facts.started),
        facts.cores,
        shards(reports).count(),
        sum(|statistics| statistics.operations.reads),
        sum(|s| s.operations.stores + s.operations.deletes + s.operations.arithmetics),
    )
}

#[cfg(test)]
mod tests {
    use super::super::metrics;
    use super::*;
    use crate::admin::AdminErrors;
    use crate::process::Usage;

    #[test]
    fn it_shows_the_figures_without_scripts_too() {
        let page = page(&Facts::example(), &metrics::tests::reports(), 1060);
        for part in [
            "href=\"/metrics\"",
            "href=\"/healthz\"",
            "href=\"/io\"",
            "60 s",
            "<td>6</td>",
            "<td>81</td>",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(!page.contains(ROWS));
    }

    /// The script names metrics in quotes; one that is renamed would leave a hole in the page.
    #[test]
    fn every_metric_that_the_page_draws_is_there() {
        let reports = metrics::tests::reports();
        let usage = Usage::default();
        let text =
            metrics::render(&Facts::example(), &reports, usage, AdminErrors::default(), 1060);
        let families: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        let is_metric = |word: &&str| word.starts_with("larder_") || word.starts_with("process_");
        let drawn: Vec<&str> = PAGE.split('\'').filter(is_metric).collect();
        assert!(drawn.len() > 20, "{drawn:?}");
        for name in drawn {
            assert!(families.contains(&name), "{name} is not among {families:?}");
        }
    }
}
