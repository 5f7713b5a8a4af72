//! Opening an index: several tables at a time, with the result that one after the other gives.

use super::*;

/// How long a request to the device takes, in nanoseconds.
const LATENCY: u64 = 10_000_000;

/// A table of a single block is opened, its footer and its index are read, and a block is sampled.
const REQUESTS_PER_TABLE: u64 = 4;

/// How many tables are opened at a time.
const AT_ONCE: u64 = 32;

const TABLES: u32 = 4 * AT_ONCE as u32;

/// An index of as many tables of level 0, each of which hides half of the one before.
fn of_many_tables(seed: u64) -> Fixture {
    let mut options = options();
    options.picker.level_zero_runs = 10_000;
    options.picker.level_zero_tables = 10_000;
    let mut fixture = Fixture::with(seed, options);
    for table in 0..TABLES {
        (0..4).for_each(|number| fixture.insert(2 * table + number, separate));
        fixture.flush();
    }
    assert_eq!(fixture.tables(), u64::from(TABLES));
    fixture
}

#[test]
fn many_tables_are_opened_in_the_time_of_a_few() {
    let mut fixture = of_many_tables(1);
    let before = fixture.index.estimate();
    let env = fixture.simulation.env();
    let latency_nanoseconds = LATENCY..=LATENCY;
    env.set_faults(FaultPlan { latency_nanoseconds, ..FaultPlan::default() });
    let began = env.now();
    fixture.reopen();
    let took = env.now() - began;
    let alone = u64::from(TABLES) * REQUESTS_PER_TABLE * LATENCY;
    assert!(took <= alone / AT_ONCE * 3 / 2, "{took} ns, one by one {alone}");
    assert!(took >= alone / AT_ONCE, "more than {AT_ONCE} at a time: {took} ns");
    env.set_faults(FaultPlan::default());
    assert_eq!(fixture.index.estimate(), before);
    assert_eq!(fixture.tables(), u64::from(TABLES));
    fixture.check();
}

#[test]
fn a_table_that_is_missing_or_damaged_is_named_among_many() {
    let mut fixture = of_many_tables(2);
    let files = fixture.simulation.snapshot().files();
    let (path, bytes) = files[files.len() / 2].clone();
    let disk = fixture.simulation.snapshot();
    for damage in 0..3 {
        let mut disk = disk.clone();
        match damage {
            0 => disk.truncate(&path, bytes - 4096),
            1 => disk.lose_sector(&path, bytes - 4096),
            _ => disk.flip_bit(&path, bytes - 4000, 1),
        }
        let mut life = Simulation::with_disk(SimulationOptions::new(damage), disk);
        let error = open(&mut life, &fixture.host, fixture.options).err().expect("refused");
        let name = path.file_name().expect("a name").to_string_lossy();
        assert!(error.to_string().contains(&*name), "{error}");
    }
    let (env, missing) = (fixture.simulation.env(), path.clone());
    let removed = fixture.simulation.block_on(async move { env.remove(&missing).await });
    removed.expect("runs").expect("removes");
    let refused = open(&mut fixture.simulation, &fixture.host, fixture.options);
    let error = refused.err().expect("refused");
    assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
}
