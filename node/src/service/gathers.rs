//! Questions to all cores, and their answers put together.

use std::collections::BTreeMap;

use larder_runtime::core_env::CoreEnv;

use super::core_state::CoreState;
use super::shard_tasks::Clearing;
use crate::connection::{After, Arrival};
use crate::counters::{ConnectionList, CoreReport, Counters};
use crate::mesh::{Ask, Note, Place, Told};
use crate::prefixes::PrefixCounts;
use crate::request::{Answered, NoAnswer, NodeAnswer};

/// Who waits for what all cores say.
#[derive(Clone, Copy, Debug)]
pub(super) enum GatherFor {
    /// A connection of this core.
    Connection(Place),
    /// The registrar of namespaces.
    Registrar,
}

/// An answer that is gathered from all cores.
pub(super) struct Gather {
    pub(super) whose: GatherFor,
    pub(super) what: Ask,
    pub(super) remaining: usize,
    pub(super) told: Vec<Told>,
    pub(super) failure: Option<String>,
}

impl Gather {
    /// The memory of what was told so far, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.told.iter().map(Told::memory).sum()
    }
}

impl<C: CoreEnv> CoreState<C> {
    /// Tells the cores that asked of the shards that were cleared; returns whether there were any.
    pub(super) fn take_clearings(&mut self) -> bool {
        let clearings = self.shards.take_clearings();
        let has_any = !clearings.is_empty();
        for Clearing { core, ask, result } in clearings {
            let told = result.map(|()| Told::Done).map_err(|failure| failure.to_string());
            self.answer(core, ask, told);
        }
        has_any
    }

    /// Answers a core's question.
    pub(super) fn answer(&mut self, core: usize, ask: u64, told: Result<Told, String>) {
        if core == self.core {
            self.gathered(ask, told);
        } else {
            self.mesh.send_note(core, Note::Told(ask, told));
        }
    }

    pub(super) fn answer_ask(&mut self, core: usize, ask: u64, what: Ask) {
        let told = match what {
            Ask::Clear(at) => return self.shards.start_clearing(core, ask, at),
            Ask::DropNamespace(number) => return self.shards.start_dropping(core, ask, number),
            Ask::Connections => return self.listings.push((core, ask)),
            Ask::Reset => {
                self.counters = Counters::default();
                self.observer.prefixes.reset();
                Told::Report(Box::new(self.report()))
            }
            Ask::Report => Told::Report(Box::new(self.report())),
            Ask::Namespaces(table) => {
                self.shards.set_namespaces(&table);
                self.namespaces.set(table);
                Told::Done
            }
            Ask::CountPrefixes(is_on) => {
                self.observer.count_prefixes(is_on);
                Told::Done
            }
            Ask::LimitValues(bytes) => {
                self.shards.limit_values(bytes);
                Told::Done
            }
            Ask::Prefixes => Told::Prefixes(self.observer.prefixes.counted()),
            Ask::Watch(kinds) => {
                self.observer.watch(core, kinds);
                Told::Done
            }
        };
        self.answer(core, ask, Ok(told));
    }

    pub(super) fn start_gather(&mut self, whose: GatherFor, what: Ask) {
        let ask = self.gather_next;
        self.gather_next += 1;
        let remaining = match what {
            Ask::Clear(_) | Ask::DropNamespace(_) => usize::from(self.shared.shards),
            _ => self.mesh.cores(),
        };
        let asked = what.clone();
        let gather = Gather { whose, what: asked, remaining, told: Vec::new(), failure: None };
        self.gathers.insert(ask, gather);
        for peer in self.mesh.peers().collect::<Vec<_>>() {
            self.mesh.send_note(peer, Note::Ask(ask, what.clone()));
        }
        self.answer_ask(self.core, ask, what);
    }

    /// Takes one of the answers that a gather waits for.
    pub(super) fn gathered(&mut self, ask: u64, answer: Result<Told, String>) {
        let gather = self.gathers.get_mut(&ask).expect("a gather stays until its last answer");
        match answer {
            Ok(told) => gather.told.push(told),
            Err(failure) => gather.failure = Some(failure),
        }
        gather.remaining -= 1;
        if gather.remaining > 0 {
            return;
        }
        let gather = self.gathers.remove(&ask).expect("it was just looked at");
        if let Some(failure) = &gather.failure {
            tracing::error!("what all shards were to do has failed: {failure}");
        }
        let place = match gather.whose {
            GatherFor::Connection(place) => place,
            GatherFor::Registrar => return self.registrar_step_done(gather.failure.is_none()),
        };
        let answered = match gather.failure {
            Some(_) => Answered::Failed(NoAnswer::Stopped),
            None => Answered::Node(self.sum(place, &gather.what, gather.told)),
        };
        let arrival = Arrival { answered, after: After::NOTHING, core: None };
        self.arrived.push((place, arrival));
    }

    /// What all cores have told to the question of a connection.
    pub(super) fn sum(&self, place: Place, what: &Ask, told: Vec<Told>) -> NodeAnswer {
        let asking = self.number_of(self.core, place.connection);
        let (mut reports, mut lists) = (Vec::new(), Vec::new());
        let mut prefixes: BTreeMap<Box<[u8]>, PrefixCounts> = BTreeMap::new();
        for told in told {
            match told {
                Told::Report(report) => reports.push(*report),
                Told::Connections(list) => lists.push(list),
                Told::Prefixes(counted) => {
                    for (prefix, counts) in counted {
                        prefixes.entry(prefix).or_default().add(&counts);
                    }
                }
                Told::Done => {}
            }
        }
        match what {
            Ask::Clear(_) => NodeAnswer::Cleared,
            Ask::Report | Ask::Reset => {
                reports.sort_by_key(|report: &CoreReport| report.core);
                NodeAnswer::Reports(reports, self.now)
            }
            Ask::Connections => NodeAnswer::Connections(ConnectionList::new(lists, asking)),
            Ask::Prefixes => NodeAnswer::Prefixes(prefixes.into_iter().collect()),
            Ask::CountPrefixes(_)
            | Ask::LimitValues(_)
            | Ask::Watch(_)
            | Ask::Namespaces(_)
            | Ask::DropNamespace(_) => NodeAnswer::Done,
        }
    }
}
