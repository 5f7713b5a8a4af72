//! The node's figures: those of memcached's `stats` under their names, and its own counters.

use larder_protocol::native::StatisticsReply;

use crate::counters::{CoreReport, Counters};
use crate::facts::Facts;
use crate::memcached::statistics::{Section, lines};

/// All figures of a node at Unix second `now`; `reports` has one for each core.
pub(super) fn reply(facts: &Facts, reports: &[CoreReport], now: u32) -> StatisticsReply {
    let now = u64::from(now);
    let mut values = lines(Section::General, facts, reports, now).unwrap_or_default();
    let mut counters = Counters::default();
    for report in reports {
        counters.add(&report.counters);
    }
    for (name, value) in counters.named() {
        if values.iter().all(|(known, _)| known != name) {
            values.push((name.to_owned(), value.to_string()));
        }
    }
    values.push(("durability".to_owned(), facts.durability.clone()));
    values.push(("shards".to_owned(), facts.shards.to_string()));
    for CoreReport { core, connections, waiting, .. } in reports {
        values.push((format!("core{core}:connections"), connections.to_string()));
        values.push((format!("core{core}:waiting"), waiting.to_string()));
    }
    for shard in reports.iter().flat_map(|report| &report.shards) {
        let (number, stopped) = (shard.shard, shard.stopped.is_some());
        values.push((format!("shard{number}:stopped"), u8::from(stopped).to_string()));
    }
    StatisticsReply { values }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::counters::ShardReport;

    #[test]
    fn every_figure_has_one_name_and_counters_are_sums_over_the_cores() {
        let report = |core| CoreReport {
            counts_prefixes: false,
            watchers: 0,
            core,
            connections: 4,
            waiting: core,
            memory: Default::default(),
            buffer_shortages: 0,
            counters: Counters { cmd_get: 3, forwarded: 2, ..Counters::default() },
            shards: vec![ShardReport {
                shard: core as u16,
                statistics: Default::default(),
                stopped: (core == 1).then(|| "for a reason".to_owned()),
            }],
            disk: Default::default(),
            files: Default::default(),
            turns: Default::default(),
            time: Default::default(),
        };
        let StatisticsReply { values } = reply(&Facts::example(), &[report(0), report(1)], 1060);
        let names: BTreeSet<&String> = values.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), values.len());
        for (name, value) in [
            ("uptime", "60"),
            ("cmd_get", "6"),
            ("forwarded", "4"),
            ("curr_connections", "8"),
            ("durability", "sync"),
            ("core1:waiting", "1"),
            ("shard0:stopped", "0"),
            ("shard1:stopped", "1"),
        ] {
            assert!(values.contains(&(name.to_owned(), value.to_owned())), "{name} in {values:?}");
        }
    }
}
