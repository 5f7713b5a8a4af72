use std::path::PathBuf;

use clap::Parser;

use super::*;
use crate::config::Options;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: MemcachedArgs,
}

fn translated(line: &str) -> Result<Translation, String> {
    let line = std::iter::once("memcached").chain(line.split_whitespace());
    let args = Line::try_parse_from(line).map_err(|error| error.to_string())?.args;
    translate(&args, 4)
}

fn options(line: &str) -> Options {
    translated(line).expect("a good line").options
}

#[test]
fn a_line_from_a_script() {
    let found = options("-m 1024 -p 11222 -l 127.0.0.1 -c 4096 -t 2 -I 2m -o idle_timeout=30 -F");
    assert_eq!(found.memory, Some(Size(1 << 30)));
    assert_eq!(found.memcached_port, Some(11222));
    assert_eq!(found.listen, Some("127.0.0.1".parse().expect("an address")));
    assert_eq!((found.max_connections, found.cores), (Some(4096), Some(2)));
    assert_eq!((found.max_item_size, found.idle_timeout), (Some(Size(2 << 20)), Some(30)));
    assert_eq!((found.disable_flush_all, found.enable_shutdown), (Some(true), Some(false)));
    let found = options("-A -s /run/socket -a 0770 -Y /etc/passwords --data-dir /data");
    assert_eq!(found.unix_socket, Some(PathBuf::from("/run/socket")));
    assert_eq!(found.unix_socket_mode, Some(FileMode(0o770)));
    assert_eq!(found.auth_file, Some(PathBuf::from("/etc/passwords")));
    assert_eq!(found.data_dir, Some(PathBuf::from("/data")));
    assert_eq!(found.listen, Some("127.0.0.1".parse().expect("an address")));
    let long = "--memory-limit=100 --port=1 --conn-limit 5 --threads 1 --listen=0.0.0.0 --verbose";
    let found = options(long);
    assert_eq!((found.memory, found.max_connections), (Some(Size(100 << 20)), Some(5)));
}

#[test]
fn what_is_not_given_is_as_with_memcached() {
    let found = options("");
    assert_eq!(found.memory, Some(Size(64 << 20)));
    assert_eq!((found.max_connections, found.memcached_port), (Some(1024), None));
    assert_eq!(found.listen, Some("0.0.0.0".parse().expect("an address")));
    assert_eq!(found.log_level.as_deref(), Some("warn"));
    for (line, level) in [("-v", "info"), ("-vv", "debug"), ("-vvv", "trace"), ("-vvvv", "trace")] {
        assert_eq!(options(line).log_level.as_deref(), Some(level));
    }
    assert_eq!(options("-p -1").memcached_port, Some(0));
}

#[test]
fn a_path_stands_for_the_port_unless_there_is_one_in_the_line() {
    for (line, has_no_port) in
        [("-s /x", true), ("-s /x -p 0", true), ("-s /x -p 1", false), ("-p 0", false), ("", false)]
    {
        assert_eq!(translated(line).expect("a good line").has_no_port, has_no_port, "{line}");
    }
    let found = translated("-D / -X -W").expect("a good line");
    assert_eq!(found.prefix_delimiter, Some(b'/'));
    assert_eq!(
        (found.options.disable_dumps, found.options.disable_watch),
        (Some(true), Some(true))
    );
}

#[test]
fn each_option_without_meaning_gets_a_word() {
    for line in [
        "-U 11211",
        "-d",
        "-r",
        "-u nobody",
        "-M",
        "-k",
        "-f 1.1",
        "-n 48",
        "-L",
        "-R 20",
        "-C",
        "-b 1024",
        "-B binary",
        "-e /tmp/x",
        "-N 2",
        "-t 8",
        "-p 0",
        "-o modern",
        "-o no_lru_crawler",
        "-o hashpower=16",
        "-o ext_path=/x:1G",
        "-l 0.0.0.0",
    ] {
        let words = translated(line).expect(line).words;
        let option = &line[..2];
        assert!(words.len() == 1 && words[0].starts_with(option), "{line}: {words:?}");
    }
    for line in [
        "-s /x",
        "-s /x -p 0",
        "-X -W",
        "-D /",
        "-U 0",
        "-B auto",
        "-t 4",
        "-l 127.0.0.1",
        "-v",
        "-o idle_timeout=0",
        "",
    ] {
        assert_eq!(translated(line).expect(line).words, Vec::<String>::new(), "{line}");
    }
    let words = translated("-dMk -o modern,hashpower=16,,track_sizes").expect("a good line").words;
    assert_eq!(words.len(), 6);
}

#[test]
fn what_would_leave_a_door_open_is_refused_and_so_is_nonsense() {
    for line in [
        "-S",
        "-Z",
        "-D ::",
        "-o ssl_key=x",
        "-o nonsense",
        "-o idle_timeout=soon",
        "-l one.example",
        "-t 0",
        "-l 127.0.0.1:11211",
        "-l 127.0.0.1,127.0.0.2",
        "-p 65536",
        "-p -2",
        "-c 0",
        "-m 0",
        "-m 99999999999999999999",
        "-I 1g",
        "-a 999",
        "--nonsense",
        "-q",
        "-o drop_privileges",
    ] {
        assert!(translated(line).is_err(), "{line}");
    }
}
