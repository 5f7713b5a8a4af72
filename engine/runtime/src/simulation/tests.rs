//! Each promise of the simulation, tested.

mod crashes;
mod faulty;
mod files;
mod network;
mod scheduling;

use std::io;
use std::path::Path;

use super::content::PAGE;
use super::*;
use crate::buffer::Buffer;
use crate::env::{Env, File, IoClass, OpenMode};

const CLASS: IoClass = IoClass::Commit;

fn options(seed: u64) -> SimulationOptions {
    SimulationOptions::new(seed)
}

fn with_faults(seed: u64, faults: FaultPlan) -> SimulationOptions {
    SimulationOptions { faults, ..options(seed) }
}

/// A buffer of `pages` pages, every byte `byte`.
fn filled(env: &SimEnv, pages: usize, byte: u8) -> Buffer {
    let mut buffer = env.buffer(pages * PAGE);
    buffer.fill(byte);
    buffer
}

async fn create(env: &SimEnv, path: &str) -> SimFile {
    env.open(Path::new(path), OpenMode::CreateNew).await.unwrap()
}

/// Creates a file whose name is durable.
async fn create_durably(env: &SimEnv, path: &str) -> SimFile {
    let file = create(env, path).await;
    env.sync_directory(Path::new(path).parent().unwrap()).await.unwrap();
    file
}

/// Writes one page of `byte` at page number `page`.
async fn put(env: &SimEnv, file: &SimFile, page: u64, byte: u8) -> io::Result<()> {
    file.write(CLASS, page * PAGE as u64, filled(env, 1, byte)).await.0
}

/// Reads one page.
async fn get(env: &SimEnv, file: &SimFile, page: u64) -> io::Result<Vec<u8>> {
    let (result, buffer) = file.read(CLASS, page * PAGE as u64, env.buffer(PAGE)).await;
    result.map(|()| buffer.to_vec())
}

/// One run on an empty disk; the simulation as it is afterwards, and what `script` returned.
fn run<T>(
    options: SimulationOptions,
    script: impl AsyncFnOnce(SimEnv) -> T,
) -> (Simulation, Result<T, Stopped>) {
    let mut simulation = Simulation::new(options);
    let env = simulation.env();
    let result = simulation.block_on(script(env));
    (simulation, result)
}

/// The one byte that fills all of `bytes`, if so.
fn uniform(bytes: &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    rest.iter().all(|byte| byte == first).then_some(*first)
}
