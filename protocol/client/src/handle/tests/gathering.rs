//! Requests of many threads and tasks go together, and each gets its own answer.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use larder_protocol::native::{GetItem, NativeRequest, RequestOptions};
use proptest::prelude::*;

use super::fake::{Fake, Store, show};
use super::{PATIENCE, builder, client, key, numbers, seed};
use crate::handle::codec::{Frame, Wire};
use crate::handle::pipeline::{Pipeline, ReplyTo};
use crate::{CallKind, Calls, Client, Put, Stored};

#[test]
fn a_client_is_for_any_number_of_threads_and_its_calls_are_futures() {
    fn is_shared<T: Clone + Send + Sync + 'static>() {}
    fn is_sent<T: Send + 'static>() {}
    is_shared::<Client>();
    is_sent::<crate::Call<Stored>>();
    is_sent::<Calls<Stored>>();
    is_sent::<crate::MultiRead>();
    is_sent::<crate::ItemStream<'static>>();
}

#[test]
fn calls_that_are_made_before_one_is_waited_for_travel_together() {
    let (sender, reads) = mpsc::channel();
    let fake = Fake::start(move |mut peer| {
        let mut seen = 0;
        let mut answer = |head, _: &NativeRequest<'_>, out: &mut Vec<u8>| {
            seen += 1;
            show(head, b"v", out);
            true
        };
        while peer.some(&mut answer) {}
        sender.send((seen, peer.reads)).expect("the test waits");
    });
    let client = client(&fake.address);
    client.get(key("warm")).wait().expect("a reply");
    let names: Vec<String> = (0..16).map(|number| format!("record{number}")).collect();
    let calls: Calls<_> = names.iter().map(|name| client.get(key(name))).collect();
    assert!(calls.wait().into_iter().all(|item| item.expect("a reply").is_some()));
    let get = client.metrics().of(CallKind::Get).clone();
    assert_eq!((get.calls, get.errors), (17, 0));
    drop(client);
    // The greeting, the first read, and all others at once; the last one finds the end.
    assert_eq!(reads.recv().expect("it ends with its client"), (17, 4));
}

#[test]
fn many_threads_get_their_own_answers_whatever_the_order_of_the_replies() {
    let seed = seed();
    let fake = Fake::start(move |mut peer| {
        // Each read's requests are answered backwards, and some of them with the next ones.
        let store = Store::default();
        let mut held: VecDeque<Vec<u8>> = VecDeque::new();
        let mut random = numbers(seed ^ peer.number as u64);
        peer.each(|head, request, out| {
            let mut reply = Vec::new();
            store.answer(head, request, &mut reply);
            held.push_front(reply);
            // The last one of all has to be answered too, so a lone request never waits.
            if random(3) > 0 || held.len() == 1 {
                held.drain(..).for_each(|reply| out.extend_from_slice(&reply));
            }
            true
        });
    });
    let client = client(&fake.address);
    let wrong = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let (client, wrong) = (client.clone(), &wrong);
            scope.spawn(move || {
                let mut random = numbers(seed + thread);
                for round in 0..60 {
                    let count = 1 + random(24);
                    let pairs: Vec<(String, String)> = (0..count)
                        .map(|at| {
                            let length = random(2000) as usize;
                            let value = format!("{thread}.{round}.{at} {}", "v".repeat(length));
                            (format!("{thread}:{at}"), value)
                        })
                        .collect();
                    let puts = pairs
                        .iter()
                        .map(|(name, value)| client.put(key(name), &Put::value(value.as_bytes())));
                    for stored in puts.collect::<Calls<_>>().wait() {
                        assert_eq!(stored.expect("a reply"), Stored::Yes(1));
                    }
                    let gets: Calls<_> =
                        pairs.iter().map(|(name, _)| client.get(key(name))).collect();
                    for (item, (_, value)) in gets.wait().into_iter().zip(&pairs) {
                        let item = item.expect("a reply").expect("stored");
                        wrong.fetch_add(
                            usize::from(item.value != value.as_bytes()),
                            Ordering::Relaxed,
                        );
                    }
                }
            });
        }
    });
    assert_eq!(wrong.into_inner(), 0);
    assert_eq!(fake.accepted.load(Ordering::SeqCst), 1, "one connection did");
}

#[test]
fn values_that_a_socket_does_not_take_at_once_get_through() {
    let store = Store::default();
    let kept = store.clone();
    let fake = Fake::start(move |mut peer| {
        peer.each(|head, request, out| store.answer(head, request, out));
    });
    let client = client(&fake.address);
    let values: Vec<Vec<u8>> = (0..12u8).map(|number| vec![number; 3 << 20]).collect();
    std::thread::scope(|scope| {
        for (number, value) in values.iter().enumerate() {
            let client = &client;
            scope.spawn(move || {
                let name = format!("large{number}");
                client.put(key(&name), &Put::value(value)).wait().expect("a reply");
                let item = client.get(key(&name)).wait().expect("a reply").expect("stored");
                assert!(item.value == *value, "{number}");
            });
        }
    });
    assert_eq!(kept.values.lock().expect("whole").len(), values.len());
}

#[test]
fn any_executor_will_do() {
    let fake = Fake::good();
    let client = client(&fake.address);
    let pair = async {
        client.put(key("k"), &Put::value(b"v")).await.expect("a reply");
        let both = (client.get(key("k")), client.get(key("none")));
        (both.0.await.expect("a reply"), both.1.await.expect("a reply"))
    };
    let (item, none) = smol::future::block_on(pair);
    assert_eq!((item.expect("stored").value, none), (b"v".to_vec(), None));
}

#[test]
fn the_connections_of_a_client_end_with_its_last_handle() {
    let (sender, ends) = mpsc::channel();
    let fake = Fake::start(move |mut peer| {
        peer.each(|head, _, out| {
            show(head, b"v", out);
            true
        });
        sender.send(()).expect("the test waits");
    });
    let first = client(&fake.address);
    let second = first.clone();
    let call = second.get(key("k"));
    drop((first, second));
    assert!(call.wait().expect("a call outlives its handle").is_some());
    ends.recv().expect("the connection has ended");
    assert_eq!(fake.accepted.load(Ordering::SeqCst), 1);
}

#[test]
fn the_threads_of_a_client_end_with_its_last_handle() {
    let (fake, silent) = (Fake::good(), Fake::start(std::mem::forget));
    let connected = client(&fake.address);
    connected.get(key("k")).wait().expect("a reply");
    let connecting = builder(&silent.address).connect_timeout(Duration::from_millis(300));
    let refused =
        builder("127.0.0.1:1").reconnect(Duration::from_secs(60), Duration::from_secs(60));
    for client in
        [connected, connecting.build().expect("a client"), refused.build().expect("a client")]
    {
        let core = Arc::downgrade(&client.core);
        let lanes: Vec<_> = client.core.nodes[0].layout().lanes().map(Arc::downgrade).collect();
        assert_eq!(lanes.len(), 1);
        drop(client);
        let began = Instant::now();
        while core.strong_count() > 0 || lanes[0].strong_count() > 0 {
            assert!(began.elapsed() < PATIENCE, "a thread holds it");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What may happen to a pipeline.
#[derive(Clone, Debug)]
enum Step {
    Push(u8),
    Begin,
    GoOn,
    /// A reply to the request at this place among those that are under way.
    Reply(usize),
    /// The same once more.
    ReplyAgain(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Push),
        2 => Just(Step::Begin),
        2 => Just(Step::GoOn),
        4 => any::<usize>().prop_map(Step::Reply),
        1 => any::<usize>().prop_map(Step::ReplyAgain),
    ]
}

fn frame(record: u8) -> Frame {
    let record = [record; 3];
    let get = GetItem {
        key: larder_protocol::native::ItemKey { namespace: 0, record: &record, item: b"" },
        metadata_only: false,
        is_quiet: false,
    };
    let (get, options) = (NativeRequest::Get(get), RequestOptions::default());
    Wire::Native.frame(&get, &options, Vec::new()).expect("a request")
}

/// The ids of whole requests.
fn ids(bytes: &[u8]) -> Vec<u64> {
    let chunks = bytes.chunks_exact(frame(0).len());
    chunks.map(|one| u64::from_le_bytes(one[8..16].try_into().expect("8 bytes"))).collect()
}

proptest! {
    #[test]
    fn whatever_happens_each_request_is_sent_once_and_answered_once(
        steps in prop::collection::vec(step(), 1..300)
    ) {
        let now = crate::clock::now();
        let mut pipeline: Pipeline<u32> = Pipeline::new(20, 400, false);
        let (mut count, mut batch): (u32, Option<Vec<u8>>) = (0, None);
        let (mut queued, mut sent) = (VecDeque::new(), HashMap::new());
        let (mut order, mut answered): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
        let mut take_out = |bytes: &[u8], queued: &mut VecDeque<u32>, order: &mut Vec<u64>| {
            for id in ids(bytes) {
                let waiter = queued.pop_front().expect("no byte is made up");
                assert!(sent.insert(id, waiter).is_none(), "an id is used once");
                order.push(id);
            }
        };
        for step in steps {
            match step {
                Step::Push(record) => {
                    let frame = frame(record);
                    if pipeline.has_room(frame.len()) {
                        pipeline.push(count, &frame, 1, now);
                        queued.push_back(count);
                        count += 1;
                    }
                }
                Step::Begin => {
                    if let Some(bytes) = pipeline.begin_send() {
                        prop_assert!(batch.is_none(), "one sender at a time");
                        take_out(&bytes, &mut queued, &mut order);
                        batch = Some(bytes);
                    }
                }
                Step::GoOn => {
                    if let Some(bytes) = batch.take() {
                        batch = pipeline.go_on_sending(bytes);
                        if let Some(bytes) = &batch {
                            take_out(bytes, &mut queued, &mut order);
                        }
                    }
                }
                Step::Reply(at) if !order.is_empty() => {
                    let id = order.swap_remove(at % order.len());
                    prop_assert!(pipeline.take(ReplyTo::Id(id)).is_some());
                    answered.push(id);
                }
                Step::ReplyAgain(at) if !answered.is_empty() => {
                    let id = answered[at % answered.len()];
                    prop_assert!(pipeline.take(ReplyTo::Id(id)).is_none());
                }
                Step::Reply(_) | Step::ReplyAgain(_) => {}
            }
            prop_assert!(pipeline.under_way() <= 20 && pipeline.waiting_bytes() <= 400 + 200);
            prop_assert_eq!(pipeline.under_way(), queued.len() + order.len());
        }
        let queued: Vec<u32> = queued.into();
        for (waiter, was_sent) in pipeline.into_waiters() {
            prop_assert_eq!(was_sent, !queued.contains(&waiter));
        }
    }
}

#[test]
fn replies_in_order_are_checked_against_their_ids() {
    let now = crate::clock::now();
    let mut pipeline: Pipeline<Arc<str>> = Pipeline::new(4, 1000, true);
    for name in ["a", "b", "c", "d"] {
        pipeline.push(name.into(), &frame(1), 1, now);
    }
    assert!(!pipeline.has_room(1));
    let sent = ids(&pipeline.begin_send().expect("something to send"));
    let taken = |pipeline: &mut Pipeline<Arc<str>>, id| {
        pipeline.take(ReplyTo::Oldest(id)).map(|taken| taken.waiter)
    };
    assert_eq!(taken(&mut pipeline, Some(sent[0])).as_deref(), Some("a"));
    assert_eq!(taken(&mut pipeline, None).as_deref(), Some("b"));
    assert_eq!(taken(&mut pipeline, Some(sent[3])), None, "c is next");
    pipeline.give_up(1);
    let left: HashMap<_, _> = pipeline.into_waiters().collect();
    assert_eq!((left["c"], left["d"]), (true, false), "the last one was not sent whole");
}
