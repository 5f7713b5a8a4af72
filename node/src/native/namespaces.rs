//! Requests about namespaces, and what is answered.

use larder_protocol::native::reply::{self, ReplyHead};
use larder_protocol::native::{
    NamespaceChange, NativeNamespace, NativeRequest, NativeStatus, Opcode,
};

use super::records::Fault;
use crate::namespaces::{NamespaceChanged, NamespaceRefusal, NamespaceRequest, NamespaceTable};

const NO_SUCH_NAME: Fault = (
    NativeStatus::UnknownNamespace,
    "there is no namespace of this name: ask for the list of them",
);

/// The change that a request asks for; `None` if it asks for something else.
pub(super) fn change(request: &NativeRequest<'_>) -> Option<NamespaceRequest> {
    Some(match *request {
        NativeRequest::CreateNamespace(NamespaceChange { name, settings }) => {
            NamespaceRequest::Create(name.to_owned(), settings)
        }
        NativeRequest::SetNamespace(NamespaceChange { name, settings }) => {
            NamespaceRequest::Set(name.to_owned(), settings)
        }
        NativeRequest::DropNamespace(name) => NamespaceRequest::Drop(name.to_owned()),
        _ => return None,
    })
}

/// Appends the list of all namespaces, or of the one of this name.
pub(super) fn put_list(
    head: ReplyHead,
    table: &NamespaceTable,
    name: Option<&str>,
    out: &mut Vec<u8>,
) {
    let body = match name {
        None => NativeNamespace::encode_all(table.iter()),
        Some(name) => match table.named(name) {
            Some(found) => NativeNamespace::encode_all(std::iter::once(found)),
            None => return put_fault(head, NO_SUCH_NAME, out),
        },
    };
    reply::put(out, head, NativeStatus::Ok, |out| out.extend_from_slice(&body));
}

/// Appends what became of a namespace.
pub(super) fn put_changed(head: ReplyHead, changed: &NamespaceChanged, out: &mut Vec<u8>) {
    let fault = match changed {
        Ok(_) if head.opcode == Opcode::DropNamespace as u8 => {
            return reply::put(out, head, NativeStatus::Ok, |_| ());
        }
        Ok(namespace) => {
            let body = NativeNamespace::encode_all(std::iter::once(namespace));
            return reply::put(out, head, NativeStatus::Ok, |out| out.extend_from_slice(&body));
        }
        Err(NamespaceRefusal::Unknown) => NO_SUCH_NAME,
        Err(NamespaceRefusal::Exists) => {
            (NativeStatus::NamespaceExists, NativeStatus::NamespaceExists.text())
        }
        Err(NamespaceRefusal::TooMany) => {
            (NativeStatus::TooManyNamespaces, "there are 1,000 namespaces, the most: drop one")
        }
        Err(NamespaceRefusal::IsDefault) => (
            NativeStatus::NamespaceExists,
            "the namespace `default`, that of memcached's port, cannot be dropped: delete its \
             items, or send `flush_all`",
        ),
    };
    put_fault(head, fault, out);
}

fn put_fault(head: ReplyHead, (status, reason): Fault, out: &mut Vec<u8>) {
    reply::put_error(out, head, status, reason);
}
