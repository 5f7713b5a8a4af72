//! Who changes namespaces: one change after the other, each in steps that a stop may cut short.
//!
//! A change is written down before anybody sees it, and answered when all cores know of it. A
//! namespace that is dropped is first marked so; when no core takes requests for it any more, all
//! that it has is deleted on each shard with one log record, and it is forgotten. A start finishes
//! what a stop has cut short.
//!
//! [`Registrar`] decides which step is next; who owns it carries the step out.

use std::collections::VecDeque;
use std::sync::Arc;

use larder_engine::key::{DEFAULT_NAMESPACE, RESERVED_NAMESPACES};
use larder_protocol::native::{NamespaceSettings, NativeNamespace};

use super::registry::{Registry, RegistryEntry};
use super::{NamespaceChanged, NamespaceRefusal, NamespaceRequest, NamespaceTable};
use crate::limits::{NAMESPACE_REQUESTS_MAX, NAMESPACES_MAX};

/// A step of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrarStep {
    /// Write this down, so that it outlasts a stop.
    Write(RegistryEntry),
    /// Tell all cores.
    Publish(Arc<NamespaceTable>),
    /// Delete all that the namespace with this number has, on all shards.
    Delete(u32),
}

/// A change under way.
#[derive(Debug)]
struct Change<A> {
    /// Who is told of the end, and what, if anybody asked.
    asked: Option<(A, NativeNamespace)>,
    /// From the step that is being carried out on.
    steps: VecDeque<RegistrarStep>,
}

/// Decides what is next. `A` is who asks.
#[derive(Debug)]
pub struct Registrar<A> {
    table: Arc<NamespaceTable>,
    next_number: u32,
    waiting: VecDeque<(A, NamespaceRequest)>,
    change: Option<Change<A>>,
    /// Numbers of namespaces whose end was cut short.
    dropping: Vec<u32>,
    /// Those that could not be brought to their end when it was tried last.
    put_off: Vec<u32>,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub enum NextStep<A> {
    /// Carry this out, and say how it went with [`Registrar::done`].
    Step(RegistrarStep),
    /// Tell this to who asked, and go on.
    Answer(A, NamespaceChanged),
    /// Nothing.
    Rest,
}

impl<A> Registrar<A> {
    /// A registrar of what is remembered.
    pub fn new(registry: Registry) -> Self {
        let Registry { table, next, dropping } = registry;
        Self {
            table: Arc::new(table),
            next_number: next,
            waiting: VecDeque::new(),
            change: None,
            dropping,
            put_off: Vec::new(),
        }
    }

    /// Takes a request, which waits for those before it; gives the asker back if too many wait.
    pub fn ask(&mut self, asker: A, request: NamespaceRequest) -> Option<A> {
        if self.waiting.len() >= NAMESPACE_REQUESTS_MAX {
            return Some(asker);
        }
        self.waiting.push_back((asker, request));
        None
    }

    /// Whether a step is under way.
    pub fn is_busy(&self) -> bool {
        self.change.is_some()
    }

    /// Tries again what could not be done. To be called now and then.
    pub fn retry(&mut self) {
        self.dropping.append(&mut self.put_off);
    }

    /// What is to be done now. To be asked until it is a step or rest.
    ///
    /// # Panics
    ///
    /// While a step is under way.
    pub fn next_step(&mut self) -> NextStep<A> {
        assert!(!self.is_busy(), "one change after the other");
        if let Some(dropped) = self.dropping.pop() {
            return self.begin(None, ending(dropped));
        }
        let Some((asker, request)) = self.waiting.pop_front() else { return NextStep::Rest };
        match self.plan(&request) {
            Ok((namespace, steps)) => self.begin(Some((asker, namespace)), steps),
            Err(refusal) => NextStep::Answer(asker, Err(refusal)),
        }
    }

    fn begin(
        &mut self,
        asked: Option<(A, NativeNamespace)>,
        steps: VecDeque<RegistrarStep>,
    ) -> NextStep<A> {
        let first = steps.front().expect("every change has steps").clone();
        self.change = Some(Change { asked, steps });
        NextStep::Step(first)
    }

    /// Learns that a step was carried out, or was not. Returns what is next; if the change has
    /// failed, who is to be told.
    ///
    /// # Panics
    ///
    /// If no step is under way.
    pub fn done(&mut self, is_done: bool) -> Result<NextStep<A>, Option<A>> {
        let mut change = self.change.take().expect("a step is under way");
        if !is_done {
            // No core knows the namespace any more: what it has must go, whoever asked.
            if let Some(
                RegistrarStep::Delete(number) | RegistrarStep::Write(RegistryEntry::Gone(number)),
            ) = change.steps.front()
            {
                self.put_off.push(*number);
            }
            return Err(change.asked.map(|(asker, _)| asker));
        }
        if let Some(RegistrarStep::Publish(table)) = change.steps.pop_front() {
            self.table = table;
        }
        if let Some(next) = change.steps.front() {
            let next = next.clone();
            self.change = Some(change);
            return Ok(NextStep::Step(next));
        }
        Ok(match change.asked {
            Some((asker, namespace)) => NextStep::Answer(asker, Ok(namespace)),
            None => self.next_step(),
        })
    }

    /// The namespace that a request leads to, and the way there.
    fn plan(
        &mut self,
        request: &NamespaceRequest,
    ) -> Result<(NativeNamespace, VecDeque<RegistrarStep>), NamespaceRefusal> {
        let known = self.table.named(request.name()).cloned();
        let publish = |table| RegistrarStep::Publish(Arc::new(table));
        match (request, known) {
            (NamespaceRequest::Create(..), Some(_)) => Err(NamespaceRefusal::Exists),
            (NamespaceRequest::Create(name, change), None) => {
                let number = self.next_number;
                let has_number = number < *RESERVED_NAMESPACES.start();
                if self.table.count() >= NAMESPACES_MAX || !has_number {
                    return Err(NamespaceRefusal::TooMany);
                }
                // A number whose namespace could not be written down is not used either.
                self.next_number += 1;
                let settings = change.of(NamespaceSettings::default());
                let namespace = NativeNamespace { name: name.clone(), number, settings };
                let write = RegistrarStep::Write(RegistryEntry::New(namespace.clone()));
                let table = self.table.with(namespace.clone());
                Ok((namespace, [write, publish(table)].into()))
            }
            (_, None) => Err(NamespaceRefusal::Unknown),
            (NamespaceRequest::Set(_, change), Some(known)) => {
                let settings = change.of(known.settings);
                let namespace = NativeNamespace { settings, ..known };
                let write = RegistrarStep::Write(RegistryEntry::Put(namespace.clone()));
                let table = self.table.with(namespace.clone());
                Ok((namespace, [write, publish(table)].into()))
            }
            (NamespaceRequest::Drop(_), Some(known)) if known.number == DEFAULT_NAMESPACE => {
                Err(NamespaceRefusal::IsDefault)
            }
            (NamespaceRequest::Drop(_), Some(known)) => {
                let write = RegistrarStep::Write(RegistryEntry::Dropping(known.number));
                let mut steps: VecDeque<_> =
                    [write, publish(self.table.without(known.number))].into();
                steps.append(&mut ending(known.number));
                Ok((known, steps))
            }
        }
    }
}

/// How a namespace ends that no core knows any more.
fn ending(number: u32) -> VecDeque<RegistrarStep> {
    [RegistrarStep::Delete(number), RegistrarStep::Write(RegistryEntry::Gone(number))].into()
}

#[cfg(test)]
mod tests {
    use larder_protocol::native::SettingsChange;

    use super::*;

    fn create(name: &str) -> NamespaceRequest {
        NamespaceRequest::Create(name.to_owned(), SettingsChange::default())
    }

    /// Asks, and carries all steps out; returns those, and the answer.
    fn change(
        registrar: &mut Registrar<u8>,
        request: NamespaceRequest,
    ) -> (Vec<RegistrarStep>, NamespaceChanged) {
        assert_eq!(registrar.ask(7, request), None);
        let (mut steps, mut next) = (Vec::new(), registrar.next_step());
        loop {
            match next {
                NextStep::Step(step) => steps.push(step),
                NextStep::Answer(asker, answer) => {
                    assert_eq!((asker, registrar.next_step()), (7, NextStep::Rest));
                    return (steps, answer);
                }
                NextStep::Rest => panic!("an answer is owed"),
            }
            next = registrar.done(true).expect("it was carried out");
        }
    }

    fn kinds(steps: &[RegistrarStep]) -> Vec<&'static str> {
        let kind = |step: &RegistrarStep| match step {
            RegistrarStep::Write(RegistryEntry::Put(_)) => "put",
            RegistrarStep::Write(RegistryEntry::New(_)) => "new",
            RegistrarStep::Write(RegistryEntry::Dropping(_)) => "dropping",
            RegistrarStep::Write(RegistryEntry::Gone(_)) => "gone",
            RegistrarStep::Publish(_) => "publish",
            RegistrarStep::Delete(_) => "delete",
        };
        steps.iter().map(kind).collect()
    }

    #[test]
    fn changes_are_written_down_before_anybody_sees_them() {
        let mut registrar = Registrar::new(Registry::default());
        let (steps, made) = change(&mut registrar, create("users"));
        assert_eq!(kinds(&steps), ["new", "publish"]);
        assert_eq!(made.expect("made").number, 1);
        assert_eq!(change(&mut registrar, create("users")).1, Err(NamespaceRefusal::Exists));
        let settings = SettingsChange { ttl_max: Some(9), ..SettingsChange::default() };
        let set = NamespaceRequest::Set("users".to_owned(), settings);
        let (steps, set) = change(&mut registrar, set);
        assert_eq!(kinds(&steps), ["put", "publish"]);
        assert_eq!(set.expect("set").settings.ttl_max, 9);
        let drop = NamespaceRequest::Drop("users".to_owned());
        let (steps, dropped) = change(&mut registrar, drop.clone());
        assert_eq!(kinds(&steps), ["dropping", "publish", "delete", "gone"]);
        assert_eq!(dropped.expect("dropped").settings.ttl_max, 9);
        assert_eq!(change(&mut registrar, drop).1, Err(NamespaceRefusal::Unknown));
        let (_, again) = change(&mut registrar, create("users"));
        assert_eq!(again.expect("made").number, 2, "no number is used again");
    }

    #[test]
    fn the_default_namespace_can_be_changed_and_stays() {
        let mut registrar = Registrar::new(Registry::default());
        let name = || "default".to_owned();
        assert_eq!(change(&mut registrar, create("default")).1, Err(NamespaceRefusal::Exists));
        let settings = SettingsChange { ttl_default: Some(9), ..SettingsChange::default() };
        let (steps, set) = change(&mut registrar, NamespaceRequest::Set(name(), settings));
        assert_eq!(kinds(&steps), ["put", "publish"]);
        let set = set.expect("set");
        assert_eq!((set.number, set.settings.ttl_default), (DEFAULT_NAMESPACE, 9));
        let dropped = change(&mut registrar, NamespaceRequest::Drop(name())).1;
        assert_eq!(dropped, Err(NamespaceRefusal::IsDefault));
    }

    #[test]
    fn there_are_no_more_namespaces_than_there_may_be() {
        let mut registrar = Registrar::new(Registry::default());
        for number in 1..NAMESPACES_MAX {
            assert!(change(&mut registrar, create(&format!("n{number}"))).1.is_ok());
        }
        assert_eq!(change(&mut registrar, create("more")).1, Err(NamespaceRefusal::TooMany));
        let next = *RESERVED_NAMESPACES.start();
        let mut registrar = Registrar::new(Registry { next, ..Registry::default() });
        assert_eq!(change(&mut registrar, create("last")).1, Err(NamespaceRefusal::TooMany));
    }

    #[test]
    fn a_step_that_fails_ends_its_change_and_no_other() {
        let mut registrar = Registrar::new(Registry::default());
        assert_eq!(registrar.ask(1, create("a")), None);
        assert_eq!(registrar.ask(2, create("b")), None);
        assert!(matches!(registrar.next_step(), NextStep::Step(_)));
        assert_eq!(registrar.done(false), Err(Some(1)));
        assert!(matches!(registrar.next_step(), NextStep::Step(RegistrarStep::Write(_))));
        assert!(matches!(registrar.done(true), Ok(NextStep::Step(RegistrarStep::Publish(_)))));
        let Ok(NextStep::Answer(2, Ok(made))) = registrar.done(true) else { panic!("it is made") };
        assert_eq!((made.name.as_str(), made.number), ("b", 2));
        assert_eq!(change(&mut registrar, create("a")).1.expect("made").number, 3);
    }

    #[test]
    fn a_start_finishes_what_a_stop_has_cut_short() {
        let registry = Registry { next: 5, dropping: vec![4], ..Registry::default() };
        let mut registrar = Registrar::<u8>::new(registry);
        assert_eq!(registrar.next_step(), NextStep::Step(RegistrarStep::Delete(4)));
        assert_eq!(registrar.ask(1, create("old")), None);
        let gone = RegistrarStep::Write(RegistryEntry::Gone(4));
        assert_eq!(registrar.done(true), Ok(NextStep::Step(gone)));
        assert!(matches!(registrar.done(true), Ok(NextStep::Step(RegistrarStep::Write(_)))));
    }

    #[test]
    fn an_end_that_fails_is_tried_again() {
        let registry = Registry { next: 5, dropping: vec![4], ..Registry::default() };
        let mut registrar = Registrar::<u8>::new(registry);
        for _ in 0..2 {
            assert_eq!(registrar.next_step(), NextStep::Step(RegistrarStep::Delete(4)));
            assert_eq!(registrar.done(false), Err(None));
            assert_eq!(registrar.next_step(), NextStep::Rest, "not at once");
            registrar.retry();
        }
    }

    #[test]
    fn no_more_requests_wait_than_may() {
        let mut registrar = Registrar::new(Registry::default());
        let asked = (0..=NAMESPACE_REQUESTS_MAX).map(|asker| registrar.ask(asker, create("a")));
        let refused: Vec<usize> = asked.flatten().collect();
        assert_eq!(refused, [NAMESPACE_REQUESTS_MAX]);
    }
}
