//! Namespaces, over a handle: each of its nodes has to have the same ones.

use larder_protocol::native::{
    NamespaceChange, NativeNamespace, NativeRequest, NativeStatus, SettingsChange,
};

use super::call::{Agreed, Agreement, Call};
use super::client_core::FIRST_FAILURE;
use super::operation::Outcome;
use super::{Access, CallKind, Client};
use crate::connection::Arrived;
use crate::error::ClientError;
use crate::namespaces::{all, checked, one};

impl Client {
    /// Makes a namespace on every node, with what is usual where `settings` say nothing. When this
    /// returns, every core of each node knows it. `None` if each node has one of this name already;
    /// where only some have, it is made on the others: so it is finished by repeating it.
    ///
    /// Requests name a namespace by its number, which each node gives by itself: nodes on which
    /// the same ones were made in the same order agree about it, and else the error is
    /// [`ClientError::Disagreement`].
    ///
    /// ```no_run
    /// # use larder_client::{Client, ClientError, ItemRef, SettingsChange};
    /// # fn make(client: &Client) -> Result<(), ClientError> {
    /// let settings = SettingsChange { ttl_default: Some(3600), ..SettingsChange::default() };
    /// let sessions = match client.create_namespace("sessions", settings).wait()? {
    ///     Some(made) => made,
    ///     None => client.namespace("sessions").wait()?.expect("it is there already"),
    /// };
    /// let session = client.get(ItemRef::new(sessions.number, b"user:1", b"")?).wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn create_namespace(
        &self,
        name: &str,
        settings: SettingsChange,
    ) -> Call<Option<NativeNamespace>> {
        let otherwise = NativeStatus::NamespaceExists;
        let request = |name| NativeRequest::CreateNamespace(NamespaceChange { name, settings });
        let agreement = made_by_all(self.clone(), name.to_owned());
        let read = move |reply| one(reply, otherwise);
        self.ask_of_one(name, request, (Access::Change, agreement), read)
    }

    /// Changes those settings of a namespace that are given, on every node, and returns it as it
    /// is then. `None` if there is none of this name.
    pub fn set_namespace(
        &self,
        name: &str,
        settings: SettingsChange,
    ) -> Call<Option<NativeNamespace>> {
        let otherwise = NativeStatus::UnknownNamespace;
        let request = |name| NativeRequest::SetNamespace(NamespaceChange { name, settings });
        let read = move |reply| one(reply, otherwise);
        self.ask_of_one(name, request, (Access::Change, Box::new(same)), read)
    }

    /// The namespace of this name, if there is one.
    pub fn namespace(&self, name: &str) -> Call<Option<NativeNamespace>> {
        let otherwise = NativeStatus::UnknownNamespace;
        let request = |name| NativeRequest::ListNamespaces(Some(name));
        let read = move |reply| one(reply, otherwise);
        self.ask_of_one(name, request, (Access::Read, Box::new(same)), read)
    }

    /// All namespaces, by number.
    pub fn namespaces(&self) -> Call<Vec<NativeNamespace>> {
        let list = NativeRequest::ListNamespaces(None);
        self.ask_all(&list, (Access::Read, Box::new(same)), |reply| all(&reply.ok(&[])?))
    }

    /// Deletes a namespace with all that it has on every node, which takes the same time whatever
    /// that is; whether any of them had one of this name, so that it is finished by repeating it.
    /// Its space is freed by and by, and its number is never used again.
    pub fn drop_namespace(&self, name: &str) -> Call<bool> {
        let how: (Access, Agreement) = (Access::Change, Box::new(dropped_by_all));
        self.ask_of_one(name, NativeRequest::DropNamespace, how, |reply| {
            let dropped = reply.ok(&[NativeStatus::UnknownNamespace])?;
            Ok(dropped.status == Some(NativeStatus::Ok))
        })
    }

    fn ask_of_one<'n, T>(
        &self,
        name: &'n str,
        request: impl FnOnce(&'n str) -> NativeRequest<'n>,
        how: (Access, Agreement),
        read: impl FnOnce(Arrived) -> Result<T, ClientError> + Send + 'static,
    ) -> Call<T> {
        match checked(name) {
            Ok(name) => self.ask_all(&request(name), how, read),
            Err(error) => Call::failed(error),
        }
    }

    fn ask_all<T>(
        &self,
        request: &NativeRequest<'_>,
        (access, agreement): (Access, Agreement),
        read: impl FnOnce(Arrived) -> Result<T, ClientError> + Send + 'static,
    ) -> Call<T> {
        match self.begin_all(CallKind::Namespaces, request, access) {
            Ok(asked) => Call::of_all(&self.core, asked, agreement, read),
            Err(error) => Call::failed(error),
        }
    }
}

/// The answers of all nodes; an error if one has not done what it was asked for, for another reason
/// than that there is such a namespace already, or none.
fn answers(outcomes: Vec<Outcome>) -> Result<Vec<Arrived>, ClientError> {
    let of = outcomes.len();
    let answered = |outcome: &Outcome| {
        let status = outcome.as_ref().ok().and_then(|arrived| arrived.status);
        status.is_some_and(|status| {
            let is_answer =
                matches!(status, NativeStatus::NamespaceExists | NativeStatus::UnknownNamespace);
            is_answer || (status as u8) < FIRST_FAILURE
        })
    };
    let done = outcomes.iter().filter(|outcome| answered(outcome)).count();
    let mut all = Vec::with_capacity(of);
    for outcome in outcomes {
        let is_answer = answered(&outcome);
        match outcome {
            Ok(arrived) if is_answer => all.push(arrived),
            failed => {
                let error = match failed.and_then(|arrived| arrived.ok(&[])) {
                    Err(error) => error,
                    Ok(arrived) => arrived.foreign(),
                };
                return Err(ClientError::Replicas { done, of, error: Box::new(error) });
            }
        }
    }
    Ok(all)
}

/// What all nodes say alike.
fn same(outcomes: Vec<Outcome>) -> Agreed {
    Agreed::Outcome(answers(outcomes).and_then(alike))
}

fn alike(mut all: Vec<Arrived>) -> Outcome {
    // What a node says in words, behind a status that it shares with others, may differ.
    let shown = |arrived: &Arrived| match arrived.status {
        Some(NativeStatus::Ok) => (arrived.status, arrived.body.clone()),
        status => (status, Vec::new()),
    };
    let is_same = all.windows(2).all(|pair| shown(&pair[0]) == shown(&pair[1]));
    match all.pop() {
        Some(arrived) if is_same => Ok(arrived),
        _ => Err(ClientError::Disagreement),
    }
}

fn is_done(arrived: &Arrived) -> bool {
    arrived.status == Some(NativeStatus::Ok)
}

/// What follows where a namespace was to be made. Where some nodes had it before and the others
/// have made it now, they are asked whether it is the same.
fn made_by_all(client: Client, name: String) -> Agreement {
    Box::new(move |outcomes| {
        let all = match answers(outcomes) {
            Ok(all) => all,
            Err(error) => return Agreed::Outcome(Err(error)),
        };
        let made = all.iter().filter(|arrived| is_done(arrived)).count();
        if made == 0 || made == all.len() {
            return Agreed::Outcome(alike(all));
        }
        let list = NativeRequest::ListNamespaces(Some(&name));
        match client.begin_all(CallKind::Namespaces, &list, Access::Read) {
            Ok(asked) => Agreed::Ask(asked, Box::new(same)),
            Err(error) => Agreed::Outcome(Err(error)),
        }
    })
}

/// What follows where a namespace was to be dropped: no node has it any more, whichever had.
fn dropped_by_all(outcomes: Vec<Outcome>) -> Agreed {
    Agreed::Outcome(answers(outcomes).and_then(|mut all| match all.iter().position(is_done) {
        Some(at) => Ok(all.swap_remove(at)),
        None => alike(all),
    }))
}
