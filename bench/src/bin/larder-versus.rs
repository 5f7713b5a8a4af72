//! Measures the node against memcached on this machine; see `larder-versus --help`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use larder_bench::versus::{self, VersusArgs};

fn main() -> ExitCode {
    match versus::run(&VersusArgs::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("larder-versus: {error}");
            ExitCode::FAILURE
        }
    }
}
