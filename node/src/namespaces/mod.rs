//! Namespaces: which there are, how they are, and how that changes while the node runs.
//!
//! All that is known of them is a [`NamespaceTable`], of which each core has one: it changes as a
//! whole. What has to outlast a stop are items of a namespace that is given to nobody, on shard 0
//! ([`registry`]). Changes are made one after the other by that shard's core ([`registrar`]), which
//! answers when all cores know of them.

pub mod registrar;
pub mod registry;
pub mod rules;
mod table;

pub use table::{NamespaceTable, NamespaceView};

use larder_protocol::native::{NativeNamespace, SettingsChange};

/// What may be asked of the namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceRequest {
    /// Make one.
    Create(String, SettingsChange),
    /// Change how one is.
    Set(String, SettingsChange),
    /// Delete one with all that it has.
    Drop(String),
}

impl NamespaceRequest {
    /// The name of the namespace that it is about.
    pub fn name(&self) -> &str {
        match self {
            Self::Create(name, _) | Self::Set(name, _) | Self::Drop(name) => name,
        }
    }
}

/// Why a namespace stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceRefusal {
    /// There is one of this name.
    Exists,
    /// There is none.
    Unknown,
    /// There are as many as there may be.
    TooMany,
    /// It is the default namespace, which stays.
    IsDefault,
}

/// What became of a namespace.
pub type NamespaceChanged = Result<NativeNamespace, NamespaceRefusal>;
