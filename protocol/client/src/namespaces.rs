//! Namespaces: made, changed, listed and dropped.

use larder_protocol::native::{
    NamespaceChange, NativeNamespace, NativeRequest, NativeStatus, SettingsChange,
    is_namespace_name,
};

use crate::connection::{Arrived, ClientConnection};
use crate::error::ClientError;

impl ClientConnection {
    /// Makes a namespace, with what is usual where `settings` say nothing. When this returns,
    /// every core of the node knows it. `None` if there is one of this name.
    ///
    /// # Errors
    /// Any; [`ClientError::Usage`] if no namespace can have this name.
    pub fn create_namespace(
        &mut self,
        name: &str,
        settings: SettingsChange,
    ) -> Result<Option<NativeNamespace>, ClientError> {
        let change = NamespaceChange { name: checked(name)?, settings };
        let reply = self.call(&NativeRequest::CreateNamespace(change))?;
        let found = one(reply, NativeStatus::NamespaceExists);
        self.judge(found)
    }

    /// Changes those settings of a namespace that are given, and returns it as it is then. `None`
    /// if there is none of this name.
    ///
    /// # Errors
    /// As [`ClientConnection::create_namespace`].
    pub fn set_namespace(
        &mut self,
        name: &str,
        settings: SettingsChange,
    ) -> Result<Option<NativeNamespace>, ClientError> {
        let change = NamespaceChange { name: checked(name)?, settings };
        let reply = self.call(&NativeRequest::SetNamespace(change))?;
        let found = one(reply, NativeStatus::UnknownNamespace);
        self.judge(found)
    }

    /// The namespace of this name, if there is one.
    ///
    /// # Errors
    /// As [`ClientConnection::create_namespace`].
    pub fn namespace(&mut self, name: &str) -> Result<Option<NativeNamespace>, ClientError> {
        let reply = self.call(&NativeRequest::ListNamespaces(Some(checked(name)?)))?;
        let found = one(reply, NativeStatus::UnknownNamespace);
        self.judge(found)
    }

    /// All namespaces, by number.
    ///
    /// # Errors
    /// Any.
    pub fn namespaces(&mut self) -> Result<Vec<NativeNamespace>, ClientError> {
        let reply = self.call(&NativeRequest::ListNamespaces(None))?.ok(&[])?;
        self.judge(all(&reply))
    }

    /// Deletes a namespace with all that it has, which takes the same time whatever that is;
    /// whether there was one of this name. Its space is freed by and by, and its number is never
    /// used again.
    ///
    /// # Errors
    /// As [`ClientConnection::create_namespace`].
    pub fn drop_namespace(&mut self, name: &str) -> Result<bool, ClientError> {
        let reply = self.call(&NativeRequest::DropNamespace(checked(name)?))?;
        let dropped = reply.ok(&[NativeStatus::UnknownNamespace])?;
        Ok(dropped.status == Some(NativeStatus::Ok))
    }
}

pub(crate) fn checked(name: &str) -> Result<&str, ClientError> {
    if is_namespace_name(name) {
        return Ok(name);
    }
    Err(ClientError::Usage(format!(
        "{name:?} is no name of a namespace: that is 1 to 64 of a-z, A-Z, 0-9, _, . and -, and no \
         number"
    )))
}

pub(crate) fn all(reply: &Arrived) -> Result<Vec<NativeNamespace>, ClientError> {
    NativeNamespace::decode_all(&reply.body).map_err(|_| reply.foreign())
}

/// The namespace that a reply shows; `None` if its status is `otherwise`.
pub(crate) fn one(
    reply: Arrived,
    otherwise: NativeStatus,
) -> Result<Option<NativeNamespace>, ClientError> {
    let reply = reply.ok(&[otherwise])?;
    if reply.status == Some(otherwise) {
        return Ok(None);
    }
    let mut found = all(&reply)?;
    match (found.pop(), found.is_empty()) {
        (Some(namespace), true) => Ok(Some(namespace)),
        _ => Err(reply.foreign()),
    }
}
