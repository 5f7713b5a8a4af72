#![allow(clippy::disallowed_methods, reason = "tests write configuration files")]

use std::ffi::OsString;
use std::path::Path;

use clap::{CommandFactory, Parser};

use super::sources::{self, parse_file};
use super::*;

#[derive(Parser)]
#[command(name = "serve")]
struct Serve {
    #[command(flatten)]
    args: ServeArgs,
}

fn args(arguments: &[&str]) -> ServeArgs {
    Serve::try_parse_from(std::iter::once(&"serve").chain(arguments)).expect("good options").args
}

fn environment(pairs: &[(&str, &str)]) -> impl Iterator<Item = (OsString, OsString)> {
    let pairs: Vec<_> =
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    pairs.into_iter()
}

fn written(directory: &tempfile::TempDir, text: &str) -> String {
    let path = directory.path().join("larder.toml");
    std::fs::write(&path, text).expect("a file");
    path.display().to_string()
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = written(
        &directory,
        "memory = \"2G\"\nshards = 3\nadmin_port = 1\nenable_shutdown = true\nlog_level = \"warn\"",
    );
    let variables = [
        ("LARDER_MEMORY", "3G"),
        ("LARDER_SHARDS", "4"),
        ("LARDER_DISABLE_FLUSH_ALL", "true"),
        ("LARDER_ENABLE_SHUTDOWN", "false"),
        ("OTHER_MEMORY", "7G"),
    ];
    let config = load(&args(&["--config", &file, "--memory", "4G"]), environment(&variables));
    let config = config.expect("good options");
    assert_eq!(config.memory, Size(4 << 30), "command line");
    assert_eq!(config.shards, Some(4), "environment");
    assert_eq!(config.admin_port, 1, "file");
    assert_eq!(config.memcached_port, 11211, "default");
    assert_eq!((config.enable_shutdown, config.disable_flush_all), (false, true));
    assert_eq!(config.log_level, "warn");
    let by_variable = load(&args(&[]), environment(&[("LARDER_CONFIG", &file)]));
    assert_eq!(by_variable.expect("good options").shards, Some(3));
}

#[test]
fn glommio_is_there_if_it_was_built_in() {
    let parsed = "glommio".parse::<RuntimeKind>();
    if cfg!(feature = "runtime-glommio") {
        assert_eq!(parsed.map(|kind| kind.to_string()), Ok("glommio".to_owned()));
    } else {
        let refusal = parsed.expect_err("it is not there");
        assert!(refusal.contains("--features larder/runtime-glommio"), "{refusal}");
    }
    assert_eq!("ring".parse(), Ok(RuntimeKind::Ring));
    assert_eq!("other".parse::<RuntimeKind>(), Err("write ring or glommio".to_owned()));
}

#[test]
fn what_is_printed_can_be_read_back() {
    let options = [
        "--cpus",
        "0-1",
        "--cpu-plan",
        "/etc/plan.toml",
        "--cores",
        "2",
        "--core-ports",
        "9000",
        "--durability",
        "interval:20",
        "-I",
        "8M",
        "--verbose",
        "--enable-shutdown",
        "--idle-timeout",
        "7",
        "--stall-bound",
        "25",
        "--compress-from",
        "off",
        "--read-target-us",
        "500",
        "--write-target-us",
        "2000",
        "--recovery-log",
        "64M",
        "--max-space-amp",
        "1.25",
        "--disk-limit",
        "3G",
        "--gc-rate",
        "100M",
        "--scrub-rate",
        "0",
        "--io-properties",
        "/etc/io.toml",
        "--calibrate=false",
        "--io-shares",
        "scan=5,read=900",
        "--io-caps",
        "scrub=10M,scan=none",
        "--io-latency-goal",
        "1500",
        "--shards",
        "5",
        "--listen",
        "::1",
    ];
    for options in [&options[..], &[]] {
        let config = load(&args(options), environment(&[])).expect("good options");
        let text = config.to_toml();
        let again = parse_file(Path::new("printed"), &text).expect("its own output");
        let none = Options::default;
        assert_eq!(sources::resolve(&[none(), none(), again]), config, "{text}");
    }
}

#[test]
fn errors_name_the_option_and_the_nearest_one() {
    for (text, parts) in [
        ("memroy = 1", &["larder.toml", "unknown option `memroy`", "did you mean `memory`"][..]),
        ("max_item_sizes = 1", &["`max_item_sizes`", "`max_item_size`"]),
        ("zzz = 1", &["unknown option `zzz`"]),
        ("memory = \"1X\"", &["memory = `1X`", "not a size"]),
        ("stall_bound = 60001", &["stall_bound = `60001`", "0..=60000"]),
        ("shards = 0", &["shards = `0`", "from 1 to 999"]),
        ("max_item_size = \"1\"", &["max_item_size", "between 1K and 128M"]),
        ("max_space_amp = \"1.05\"", &["max_space_amp = `1.05`", "from 1.1 to 100"]),
        ("recovery_log = \"1K\"", &["recovery_log = `1K`", "less than 4M"]),
        ("calibrate = 3", &["calibrate = `3`"]),
        ("io_shares = \"scans=5\"", &["io_shares = `scans=5`", "no class `scans`", "scrub"]),
        ("io_shares = 5", &["io_shares = `5`", "CLASS=VALUE"]),
        ("io_caps = \"scan=0\"", &["io_caps = `scan=0`", "scan: `0` is neither"]),
        ("io_latency_goal = 0", &["io_latency_goal = `0`", "microseconds from 10 to 10000000"]),
        ("compress_from = 0", &["compress_from = `0`", "`off`"]),
        ("durability = \"fast\"", &["durability", "interval:<milliseconds>"]),
        ("memcached_port = 70000", &["memcached_port", "70000"]),
        ("enable_shutdown = 3", &["enable_shutdown = `3`"]),
        ("memory =", &["is not TOML"]),
    ] {
        let error = parse_file(Path::new("larder.toml"), text).expect_err(text).to_string();
        for part in parts {
            assert!(error.contains(part), "{text}: {error}");
        }
    }
    let error = load(&args(&[]), environment(&[("LARDER_MEMORY", "much")])).expect_err("bad");
    assert!(error.to_string().contains("LARDER_MEMORY = `much`"), "{error}");
    let missing = load(&args(&["--config", "/no/such/file"]), environment(&[]));
    assert!(missing.expect_err("no file").to_string().contains("/no/such/file"));
}

#[test]
fn the_command_line_suggests_too_and_its_help_is_sound() {
    Serve::command().debug_assert();
    let error = Serve::try_parse_from(["serve", "--memroy", "1G"]).err().expect("an error");
    let text = error.to_string();
    assert!(text.contains("--memroy") && text.contains("--memory"), "{text}");
    let help = Serve::command().render_long_help().to_string();
    assert!(help.contains("larder serve --data-dir /mnt/nvme/larder"), "{help}");
}
