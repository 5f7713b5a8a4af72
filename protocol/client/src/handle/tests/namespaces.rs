//! Namespaces and figures of one node and of several.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_protocol::native::{
    NamespaceSettings, NativeNamespace, NativeRequest, NativeStatus, StatisticsReply, reply,
};

use super::fake::{Fake, reply_head};
use super::{builder, client};
use crate::{Client, ClientError, SettingsChange};

/// A node that has one namespace, with this number; none if that is 0.
fn node(number: u32) -> Fake {
    Fake::start(move |mut peer| {
        peer.each(|head, request, out| {
            let settings = NamespaceSettings::default();
            let own = NativeNamespace { name: "users".to_owned(), number, settings };
            let (status, body) = match request {
                NativeRequest::Statistics => {
                    let values = vec![("number".to_owned(), number.to_string())];
                    (NativeStatus::Ok, StatisticsReply { values }.encode())
                }
                NativeRequest::CreateNamespace(_) if number == 0 => {
                    (NativeStatus::Full, b"no room".to_vec())
                }
                NativeRequest::CreateNamespace(change) if change.name == "users" => {
                    (NativeStatus::NamespaceExists, number.to_string().into_bytes())
                }
                _ if number == 0 => (NativeStatus::UnknownNamespace, b"none".to_vec()),
                NativeRequest::DropNamespace(_) => (NativeStatus::Ok, Vec::new()),
                _ => (NativeStatus::Ok, NativeNamespace::encode_all([own].iter())),
            };
            reply::put(out, reply_head(head), status, |out| out.extend_from_slice(&body));
            true
        });
    })
}

fn over(nodes: &[Fake]) -> Client {
    let first = builder(&nodes[0].address);
    let build = nodes[1..].iter().fold(first, |build, node| build.node(&node.address));
    build.build().expect("a client")
}

#[test]
fn one_node_says_what_it_has() {
    let (with, without) = (node(7), node(0));
    let settings = SettingsChange::default;
    let with = client(&with.address);
    assert_eq!(with.create_namespace("users", settings()).wait().expect("told"), None);
    let made = with.create_namespace("others", settings()).wait().expect("told");
    assert_eq!(made.map(|made| made.number), Some(7));
    let found = with.namespace("users").wait().expect("told");
    assert_eq!(found.map(|found| found.number), Some(7));
    assert!(with.set_namespace("users", settings()).wait().expect("told").is_some());
    assert_eq!(with.namespaces().wait().expect("told").len(), 1);
    assert!(with.drop_namespace("users").wait().expect("told"));
    let without = client(&without.address);
    assert_eq!(without.namespace("users").wait().expect("told"), None);
    assert_eq!(without.set_namespace("users", settings()).wait().expect("told"), None);
    assert!(!without.drop_namespace("users").wait().expect("told"));
    let error = without.create_namespace("users", settings()).wait().expect_err("it is full");
    assert!(error.to_string().contains("no room"), "{error}");
    let error = without.namespace("no name").wait().expect_err("a space");
    assert!(matches!(error, ClientError::Usage(_)), "{error}");
}

#[test]
fn several_nodes_have_to_agree() {
    let alike = [node(7), node(7)];
    let client = over(&alike);
    let found = client.namespace("users").wait().expect("both say the same");
    assert_eq!(found.map(|found| found.number), Some(7));
    let made = client.create_namespace("users", SettingsChange::default()).wait();
    assert_eq!(made.expect("both have it already"), None);
    assert!(client.drop_namespace("users").wait().expect("both have had it"));
    for others in [[node(7), node(8)], [node(7), node(0)]] {
        let client = over(&others);
        let error = client.namespace("users").wait().expect_err("they differ");
        assert!(matches!(error, ClientError::Disagreement), "{error}");
        assert!(error.to_string().contains("larder ns list"), "{error}");
    }
    let others = [node(7), node(0)];
    let made = over(&others).create_namespace("others", SettingsChange::default()).wait();
    let error = made.expect_err("one is full");
    assert!(matches!(error, ClientError::Replicas { of: 2, .. }), "{error}");
}

#[test]
fn what_is_no_answer_is_an_error() {
    for body in [&b""[..], b"garbage that is no namespace", &[0xFF; 64]] {
        let fake = Fake::start(move |mut peer| {
            peer.each(|head, _, out| {
                let put = |out: &mut Vec<u8>| out.extend_from_slice(body);
                reply::put(out, reply_head(head), NativeStatus::Ok, put);
                true
            });
        });
        let client = client(&fake.address);
        let is_foreign = |error: &ClientError| matches!(error, ClientError::Foreign(_));
        let error = client.namespace("users").wait().expect_err("it shows none");
        assert!(is_foreign(&error), "{error}");
        let error = client.namespaces().wait().expect_err("it is no list");
        assert!(is_foreign(&error), "{error}");
        let told = client.statistics().wait().pop().expect("one node");
        assert!(told.as_ref().is_err_and(is_foreign), "{told:?}");
    }
}

#[test]
fn each_node_tells_its_own_figures() {
    let nodes = [node(3), node(4)];
    let figures = over(&nodes).statistics().wait();
    let told: Vec<_> = figures.into_iter().map(|told| told.expect("a reply")).collect();
    let figure = |number: &str| vec![("number".to_owned(), number.to_owned())];
    assert_eq!(told, [figure("3"), figure("4")]);
}

/// A node that makes one namespace, with this number, and drops it.
fn changing(number: u32, has: &Arc<AtomicBool>) -> Fake {
    let has = Arc::clone(has);
    Fake::start(move |mut peer| {
        peer.each(|head, request, out| {
            let settings = NamespaceSettings::default();
            let own = NativeNamespace { name: "users".to_owned(), number, settings };
            let shown = || (NativeStatus::Ok, NativeNamespace::encode_all([own].iter()));
            let (status, body) = match request {
                NativeRequest::CreateNamespace(_) if has.swap(true, Ordering::SeqCst) => {
                    (NativeStatus::NamespaceExists, b"it is there".to_vec())
                }
                NativeRequest::CreateNamespace(_) => shown(),
                NativeRequest::DropNamespace(_) if has.swap(false, Ordering::SeqCst) => {
                    (NativeStatus::Ok, Vec::new())
                }
                NativeRequest::ListNamespaces(_) if has.load(Ordering::SeqCst) => shown(),
                _ => (NativeStatus::UnknownNamespace, b"none".to_vec()),
            };
            reply::put(out, reply_head(head), status, |out| out.extend_from_slice(&body));
            true
        });
    })
}

#[test]
fn what_only_some_nodes_have_done_is_finished_by_repeating_it() {
    let has = [Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false))];
    let nodes = [changing(7, &has[0]), changing(7, &has[1])];
    let client = over(&nodes);
    let made = client.create_namespace("users", SettingsChange::default()).wait();
    assert_eq!(made.expect("the second makes it").map(|made| made.number), Some(7));
    let made = client.create_namespace("users", SettingsChange::default()).wait();
    assert_eq!(made.expect("both have it"), None);
    has[0].store(false, Ordering::SeqCst);
    assert!(client.drop_namespace("users").wait().expect("the second has dropped it"));
    assert!(!client.drop_namespace("users").wait().expect("none has it"));
    assert!(has.iter().all(|has| !has.load(Ordering::SeqCst)));
    // Another number is another namespace.
    has[0].store(true, Ordering::SeqCst);
    let nodes = [changing(7, &has[0]), changing(8, &has[1])];
    let made = over(&nodes).create_namespace("users", SettingsChange::default()).wait();
    let error = made.expect_err("they differ");
    assert!(matches!(error, ClientError::Disagreement), "{error}");
}
