//! Carrying out what the registrar of namespaces decides: see [`crate::namespaces`].

use larder_runtime::core_env::CoreEnv;

use super::core_state::CoreState;
use super::gathers::GatherFor;
use crate::connection::{After, Arrival};
use crate::mesh::{Ask, Note, Place};
use crate::namespaces::registrar::{NextStep, RegistrarStep};
use crate::namespaces::registry::REGISTRY_SHARD;
use crate::namespaces::{NamespaceChanged, NamespaceRequest};
use crate::request::{Answered, NoAnswer, NodeAnswer};
use crate::routing::core_of;

impl<C: CoreEnv> CoreState<C> {
    /// Begins with what a stop has cut short, on the core with the registrar.
    pub(super) fn start_registrar(&mut self) {
        self.shards.set_namespaces(&self.namespaces.table());
        self.go_on_registering();
    }

    /// Takes a connection's request to change a namespace.
    pub(super) fn change_namespace(&mut self, place: Place, request: NamespaceRequest) {
        let registrar = core_of(REGISTRY_SHARD, self.mesh.cores());
        if registrar == self.core {
            self.ask_registrar((self.core, place), request);
        } else {
            self.mesh.send_note(registrar, Note::ChangeNamespace(place, request));
        }
    }

    /// Takes such a request of any core, on the core with the registrar.
    pub(super) fn ask_registrar(&mut self, asker: (usize, Place), request: NamespaceRequest) {
        let registrar = self.registrar.as_mut().expect("it is asked where it is");
        if let Some((core, place)) = registrar.ask(asker, request) {
            return self.tell_changed(core, place, Err(NoAnswer::Busy));
        }
        self.go_on_registering();
    }

    /// Takes the ends of what was to be written down; returns whether there were any.
    pub(super) fn take_registered(&mut self) -> bool {
        let registered = self.shards.take_registered();
        let has_any = !registered.is_empty();
        for result in registered {
            if let Err(error) = &result {
                tracing::error!("a change of the namespaces was not written down: {error}");
            }
            self.registrar_step_done(result.is_ok());
        }
        has_any
    }

    /// Once a second: tries again what has failed.
    pub(super) fn retry_registering(&mut self) {
        if let Some(registrar) = &mut self.registrar {
            registrar.retry();
            self.go_on_registering();
        }
    }

    /// Learns that a step of the registrar was carried out, or was not.
    pub(super) fn registrar_step_done(&mut self, is_done: bool) {
        let registrar = self.registrar.as_mut().expect("its steps end where it is");
        match registrar.done(is_done) {
            Ok(next) => self.carry_on(next),
            Err(asker) => {
                if let Some((core, place)) = asker {
                    let failure = if self.shards.has_stopped(REGISTRY_SHARD) {
                        NoAnswer::Stopped
                    } else {
                        NoAnswer::Full
                    };
                    self.tell_changed(core, place, Err(failure));
                }
                self.go_on_registering();
            }
        }
    }

    fn go_on_registering(&mut self) {
        if let Some(registrar) = self.registrar.as_mut().filter(|registrar| !registrar.is_busy()) {
            let next = registrar.next_step();
            self.carry_on(next);
        }
    }

    fn carry_on(&mut self, mut next: NextStep<(usize, Place)>) {
        loop {
            match next {
                NextStep::Rest => return,
                NextStep::Step(step) => return self.start_step(step),
                NextStep::Answer((core, place), changed) => {
                    self.tell_changed(core, place, Ok(changed));
                }
            }
            let registrar = self.registrar.as_mut().expect("it has just answered");
            next = registrar.next_step();
        }
    }

    fn start_step(&mut self, step: RegistrarStep) {
        match step {
            RegistrarStep::Write(entry) => self.shards.start_registering(&entry),
            RegistrarStep::Publish(table) => {
                self.start_gather(GatherFor::Registrar, Ask::Namespaces(table));
            }
            RegistrarStep::Delete(number) => {
                self.start_gather(GatherFor::Registrar, Ask::DropNamespace(number));
            }
        }
    }

    fn tell_changed(
        &mut self,
        core: usize,
        place: Place,
        result: Result<NamespaceChanged, NoAnswer>,
    ) {
        if core == self.core {
            self.namespace_changed(place, result);
        } else {
            self.mesh.send_note(core, Note::NamespaceChanged(place, result));
        }
    }

    /// Hands the end of a change to the connection that asked.
    pub(super) fn namespace_changed(
        &mut self,
        place: Place,
        result: Result<NamespaceChanged, NoAnswer>,
    ) {
        let answered = match result {
            Ok(changed) => Answered::Node(NodeAnswer::Namespace(changed)),
            Err(failure) => Answered::Failed(failure),
        };
        self.arrived.push((place, Arrival { answered, after: After::NOTHING, core: None }));
    }
}
