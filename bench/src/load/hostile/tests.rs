use std::net::TcpListener;

use clap::{Parser, ValueEnum};

use super::super::fake_server::{Behaviour, start};
use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: HostileArgs,
}

fn measured(behaviour: Behaviour, attack: &str) -> HostileSummary {
    let target = format!("memcached://{}", start(behaviour));
    let line = ["hostile", "--target", &target, "--attack", attack];
    let short = ["--duration", "0.2", "--calm", "0.2", "--rate", "500"];
    let pid = std::process::id().to_string();
    let pid = ["--server-pid", &pid];
    let command = Command::try_parse_from(line.into_iter().chain(short).chain(pid));
    measure(&command.unwrap_or_else(|error| panic!("{error}")).args).expect("figures")
}

#[test]
fn every_request_of_both_parts_is_counted() {
    let summary = measured(Behaviour::Honest, "stores");
    for part in [&summary.calm, &summary.attacked] {
        let counts = (part.get.count, part.set.count, part.failed);
        assert_eq!(counts.0 + counts.1, 100, "{counts:?}");
        assert_eq!((part.late.count, part.failed), (100, 0), "{:?}", part.failed_first);
        assert!(part.set.count >= 16, "one of six");
    }
    assert!(summary.attackers.connections >= 1 && summary.attackers.bytes_sent > 0);
    assert!(summary.server.is_some_and(|server| server.resident_peak_bytes > 0));
    let text = render(&summary);
    assert!(text.contains("alone GET") && text.contains("Stores SET"), "{text}");
}

#[test]
fn attackers_begin_again_if_the_attack_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let target = listener.local_addr().expect("bound");
    let is_over = AtomicBool::new(false);
    // Four of the attack's connections.
    let step = Attack::Churn.plan().connections / 4;
    let attackers = Attackers::new(target, Attack::Churn, 0, step).expect("epoll");
    let deeds = std::thread::scope(|scope| {
        let thread = host::start_thread(scope, "attackers".to_owned(), || attackers.run(&is_over));
        let thread = thread.expect("a thread");
        for _ in 0..20 {
            drop(listener.accept().expect("a connection"));
        }
        is_over.store(true, Ordering::Relaxed);
        thread.join().expect("no panic").expect("an attack")
    });
    assert!(deeds.connected >= 20, "{deeds:?}");
}

#[test]
fn a_refusal_names_the_option() {
    for (option, value) in [
        ("--target", "http://a:1"),
        ("--rate", "0"),
        ("--connections", "0"),
        ("--threads", "0"),
        ("--duration", "0"),
        ("--calm", "nan"),
    ] {
        let target = ["--target", "memcached://127.0.0.1:1"];
        let mut line = vec!["hostile", "--attack", "partial", option, value];
        if option != "--target" {
            line.extend(target);
        }
        let command = Command::try_parse_from(line).unwrap_or_else(|error| panic!("{error}"));
        let error = measure(&command.args).expect_err("refused").to_string();
        assert!(error.contains(option), "{option}: {error}");
    }
    assert_eq!(Attack::value_variants().len(), 9);
}
