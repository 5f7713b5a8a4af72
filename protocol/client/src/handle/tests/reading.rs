//! Threads that wait read their answers themselves, and nobody else is forgotten.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use larder_protocol::native::reply::{ReplyHead, put_item};
use larder_protocol::native::{NativeRequest, NativeStatus};

use super::fake::{Fake, Store, item, reply_head, say, show};
use super::{PATIENCE, builder, client, key, numbers, seed};
use crate::{Calls, Client, ClientError, Put};

const SHORT: Duration = Duration::from_millis(200);

fn is_left_to_others(client: &Client) -> bool {
    client.core.nodes[0].layout().lanes().all(|lane| lane.is_left_to_others())
}

/// Waits for answers alone, until the lane's thread leaves it to who waits to read.
fn have_left(client: &Client) {
    let began = Instant::now();
    while !is_left_to_others(client) {
        assert!(began.elapsed() < PATIENCE, "the lane's thread goes on reading");
        client.get(key("k")).wait().expect("a reply");
    }
}

/// A node that shows an item whatever it is asked, but for the record `late`: whose answers come
/// when that is said, all that are there then.
struct Late {
    fake: Fake,
    let_go: mpsc::Sender<()>,
    /// Told whenever it has been asked for `late`.
    asked: mpsc::Receiver<()>,
}

fn late() -> Late {
    let (let_go, wait) = mpsc::channel();
    let (sender, asked) = mpsc::channel();
    let wait = Arc::new(Mutex::new(wait));
    let fake = Fake::start(move |mut peer| {
        let held = Arc::new(Mutex::new(Vec::new()));
        let mut stream = peer.stream.try_clone().expect("a descriptor");
        let (holding, wait) = (Arc::clone(&held), Arc::clone(&wait));
        std::thread::spawn(move || {
            let wait = wait.lock().expect("one connection is let go");
            while wait.recv().is_ok() {
                let replies = std::mem::take(&mut *holding.lock().expect("whole"));
                let _ = std::io::Write::write_all(&mut stream, &replies);
            }
        });
        peer.each(|head, request, out| {
            match request {
                NativeRequest::Get(get) if get.key.record == b"late" => {
                    show(head, b"late", &mut held.lock().expect("whole"));
                    let _ = sender.send(());
                }
                _ => show(head, b"v", out),
            }
            true
        });
    });
    Late { fake, let_go, asked }
}

#[test]
fn one_thread_alone_reads_for_itself_until_somebody_else_comes() {
    let fake = Fake::good();
    // What the client asks for itself is read by the lane's thread.
    let client = builder(&fake.address).hello_every(PATIENCE * 10).build().expect("a client");
    for _ in 0..3 {
        have_left(&client);
        for number in 0..20 {
            let name = format!("record{number}");
            client.put(key(&name), &Put::value(name.as_bytes())).wait().expect("a reply");
            let calls: Calls<_> = (0..=number).map(|_| client.get(key(&name))).collect();
            for item in calls.wait() {
                assert_eq!(item.expect("a reply").expect("stored").value, name.as_bytes());
            }
        }
        assert!(is_left_to_others(&client), "the lane's thread was called for nothing");
        let item = smol::block_on(client.get(key("record7"))).expect("a reply");
        assert_eq!(item.expect("stored").value, b"record7");
        let began = Instant::now();
        while is_left_to_others(&client) {
            assert!(began.elapsed() < PATIENCE, "nobody reads for tasks");
        }
    }
}

#[test]
fn a_connection_that_ends_while_nobody_reads_is_made_anew_at_once() {
    let fake = Fake::good();
    let client = client(&fake.address);
    have_left(&client);
    client.core.nodes[0].layout().lanes().for_each(|lane| lane.cut());
    let began = Instant::now();
    while fake.accepted.load(Ordering::SeqCst) < 2 {
        assert!(began.elapsed() < PATIENCE, "nobody has noticed");
        std::thread::sleep(Duration::from_millis(1));
    }
    client.put(key("k"), &Put::value(b"v")).wait().expect("the new connection is good");
}

#[test]
fn a_connection_that_a_node_closes_while_a_thread_reads_fails_its_call_alone() {
    let fake = Fake::start(|mut peer| {
        let is_last = peer.number > 0;
        peer.each(|head, request, out| {
            show(head, b"v", out);
            is_last || !matches!(request, NativeRequest::Get(get) if get.key.record == b"close")
        });
    });
    let client = builder(&fake.address).tries(1).build().expect("a client");
    have_left(&client);
    // The node closes behind its answer: the call that comes next has a new connection, or is told.
    client.get(key("close")).wait().expect("it is answered");
    let began = Instant::now();
    while client.get(key("k")).wait().is_err() {
        assert!(began.elapsed() < PATIENCE, "the connection is not made anew");
    }
    assert_eq!(fake.accepted.load(Ordering::SeqCst), 2);
}

#[test]
fn a_thread_that_reads_outlives_its_connections() {
    let seed = seed();
    let fake = Fake::good();
    let client = client(&fake.address);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = numbers(seed);
            while !is_over.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_micros(random(4000)));
                client.core.nodes[0].layout().lanes().for_each(|lane| lane.cut());
            }
        });
        let mut answered = 0;
        for _ in 0..2000 {
            let calls: Calls<_> = (0..4).map(|_| client.get(key("k"))).collect();
            for item in calls.wait() {
                // A connection that is cut again and again may use up the tries of a call, but
                // nobody waits for answers that never come.
                let is_late = matches!(item, Err(ClientError::Timeout { .. }));
                assert!(!is_late, "nobody has read");
                answered += usize::from(item.is_ok());
            }
        }
        is_over.store(true, Ordering::SeqCst);
        println!("{answered} answered over {} connections", fake.accepted.load(Ordering::SeqCst));
        assert!(answered > 0 && fake.accepted.load(Ordering::SeqCst) > 1);
    });
    have_left(&client);
}

#[test]
fn a_deadline_ends_a_thread_that_reads() {
    let Late { fake, let_go, .. } = late();
    let client = client(&fake.address);
    have_left(&client);
    let began = Instant::now();
    let error = client.with_timeout(SHORT).get(key("late")).wait().expect_err("it is late");
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert!((SHORT..PATIENCE / 2).contains(&began.elapsed()), "{:?}", began.elapsed());
    let_go.send(()).expect("it waits");
    // The late answer is passed over, and others come as ever.
    client.get(key("k")).wait().expect("a reply");
    have_left(&client);
}

#[test]
fn who_reads_wakes_others_and_leaves_them_what_is_owed() {
    let Late { fake, let_go, asked } = late();
    let client = client(&fake.address);
    have_left(&client);
    std::thread::scope(|scope| {
        let reads = scope.spawn(|| client.get(key("late")).wait());
        asked.recv_timeout(PATIENCE).expect("it was sent");
        // Another thread's answer, and a task's, come through the thread that reads.
        client.get(key("k")).wait().expect("a reply");
        smol::block_on(client.get(key("k"))).expect("a reply");
        assert!(!reads.is_finished());
        let_go.send(()).expect("it waits");
        assert!(reads.join().expect("no panic").expect("a reply").is_some());
    });
    have_left(&client);
    // What is owed still when a thread has its answer is for the lane's thread, also where nobody
    // asks for anything any more.
    let (first, second) = (client.get(key("k")), client.get(key("late")));
    first.wait().expect("a reply");
    asked.recv_timeout(PATIENCE).expect("it was sent");
    let_go.send(()).expect("it waits");
    assert!(smol::block_on(second).expect("a reply").is_some());
}

/// What comes behind an answer to nobody is not believed, although it came before the end.
#[test]
fn a_connection_that_was_broken_off_is_not_read_any_more() {
    let fake = Fake::start(|mut peer| {
        peer.each(|head, request, out| {
            match request {
                NativeRequest::Get(get) if get.key.record == b"first" => {}
                NativeRequest::Get(get) if get.key.record == b"second" => {
                    // More than is read at once, so that a part is left behind what is foreign.
                    let nobody = ReplyHead { id: head.id + 1_000_000, ..reply_head(head) };
                    put_item(out, nobody, &item(&[0; 100_000]));
                    show(head, &[0; 60_000], out);
                }
                _ => show(head, b"v", out),
            }
            true
        });
    });
    for _ in 0..5 {
        let build = builder(&fake.address).hello_every(PATIENCE * 10).tries(1);
        let client = build.build().expect("a client");
        have_left(&client);
        let (first, second) = (client.get(key("first")), client.get(key("second")));
        first.wait().expect_err("the node has lost its way");
        second.wait().expect_err("so nothing that it says is for anybody");
    }
}

/// Nothing else can come meanwhile, neither answers nor signs that the node is there.
#[test]
fn parts_of_a_long_answer_are_signs_of_life() {
    const PARTS: usize = 20;
    let value = vec![7; 1 << 20];
    let shown = value.clone();
    let fake = Fake::start(move |mut peer| {
        let mut stream = peer.stream.try_clone().expect("a descriptor");
        let shown = shown.clone();
        peer.each(|head, request, out| {
            match request {
                NativeRequest::Get(get) if get.key.record == b"long" => {
                    let mut reply = Vec::new();
                    show(head, &shown, &mut reply);
                    for part in reply.chunks(reply.len() / PARTS) {
                        std::thread::sleep(SHORT / 4);
                        let sent = std::io::Write::write_all(&mut stream, part);
                        sent.expect("the client is there");
                    }
                }
                NativeRequest::Ping(_) => say(head, NativeStatus::Ok, out),
                _ => show(head, b"v", out),
            }
            true
        });
    });
    // Whoever asks what the node is looks whether it is silent, too.
    let build = builder(&fake.address).hello_every(SHORT / 2).silence(SHORT).tries(1);
    let client = build.build().expect("a client");
    // By the lane's thread, and by the thread that waits.
    let item = smol::block_on(client.get(key("long"))).expect("it goes on coming");
    assert!(item.expect("stored").value == value);
    have_left(&client);
    let item = client.get(key("long")).wait().expect("it goes on coming");
    assert!(item.expect("stored").value == value);
    assert_eq!(fake.accepted.load(Ordering::SeqCst), 1);
}

/// It sends what they have asked, and its own answer was read long ago: nobody would read theirs.
#[test]
fn who_goes_on_sending_for_others_has_their_answers_read() {
    let fake = Fake::good();
    let client = builder(&fake.address).hello_every(PATIENCE * 10).build().expect("a client");
    have_left(&client);
    let lane = client.core.nodes[0].layout().lanes().next().cloned().expect("a lane");
    let asked = client.get(key("k"));
    let go_on = lane.send_and_be_held_up(&client.core);
    asked.wait().expect("it was read");
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| client.get(key("k")).wait());
        while !lane.is_owed() {
            std::thread::yield_now();
        }
        let began = Instant::now();
        go_on();
        assert!(waits.join().expect("no panic").expect("a reply").is_none());
        assert!(began.elapsed() < PATIENCE / 4, "{:?}", began.elapsed());
    });
    have_left(&client);
}

#[test]
fn what_a_program_makes_of_an_answer_holds_nobody_up() {
    let fake = Fake::good();
    let client = client(&fake.address);
    have_left(&client);
    let other = client.clone();
    let changed = client.get(key("k")).map(move |_| {
        // The same thread waits once more, and then for another one that does.
        other.get(key("k")).wait().expect("a reply");
        let waits = std::thread::spawn(move || other.get(key("k")).wait());
        waits.join().expect("no panic").expect("a reply")
    });
    assert!(changed.wait().expect("a reply").is_none());
}

#[test]
fn calls_that_are_dropped_leave_nobody_without_answers() {
    let Late { fake, let_go, asked } = late();
    let client = client(&fake.address);
    for _ in 0..5 {
        have_left(&client);
        let dropped: Vec<_> = (0..3).map(|_| client.get(key("late"))).collect();
        client.get(key("k")).wait().expect("a reply");
        (0..3).for_each(|_| asked.recv_timeout(PATIENCE).expect("it was sent"));
        drop(dropped);
        let_go.send(()).expect("it waits");
    }
}

#[test]
fn threads_and_tasks_that_come_and_go_all_get_their_answers() {
    let seed = seed();
    let store = Store::default();
    let fake = Fake::start(move |mut peer| {
        peer.each(|head, request, out| store.answer(head, request, out));
    });
    let client = builder(&fake.address).connections(2).build().expect("a client");
    std::thread::scope(|scope| {
        for thread in 0..5u64 {
            let client = client.clone();
            scope.spawn(move || {
                let mut random = numbers(seed + thread);
                for round in 0..150 {
                    let name = format!("{thread}:{}", random(4));
                    let value = format!("{thread} {round} {}", "v".repeat(random(3000) as usize));
                    let put = client.put(key(&name), &Put::value(value.as_bytes()));
                    let given_up = client.get(key(&name));
                    if random(2) == 0 {
                        put.wait().expect("a reply");
                    } else {
                        smol::block_on(put).expect("a reply");
                    }
                    let calls: Calls<_> =
                        (0..=random(20)).map(|_| client.get(key(&name))).collect();
                    let reads = if random(3) > 0 { calls.wait() } else { smol::block_on(calls) };
                    drop(given_up);
                    for item in reads {
                        let item = item.expect("a reply").expect("stored");
                        assert_eq!(item.value, value.as_bytes());
                    }
                    if random(8) == 0 {
                        std::thread::sleep(Duration::from_millis(random(5)));
                    }
                }
            });
        }
    });
    let metrics = client.metrics();
    assert!(metrics.calls.iter().all(|calls| calls.errors == 0), "{metrics:?}");
    assert_eq!(metrics.retries, 0);
}
