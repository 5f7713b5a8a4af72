//! `larder check`: what is damaged.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use larder_engine::check::{self, CheckError, Repair, Report};
use larder_engine::key;
use larder_engine::value_log::segment::file_name;
use serde_json::{Value, json};

use super::{Bytes, CheckArgs, EXIT_DAMAGE, Held, InspectError, print};

pub(super) fn run(args: &CheckArgs) -> Result<ExitCode, InspectError> {
    let mut held = Held::new(&args.directory)?;
    let repairs = match held.each_shard(&async |env, shard, _| match args.repair {
        true => check::repair(env, shard).await,
        false => Ok(Repair::default()),
    }) {
        Ok(repairs) => repairs,
        Err(InspectError::Shard(error @ CheckError::Unrepairable(_))) => {
            eprintln!("larder: {error}");
            return Ok(ExitCode::from(EXIT_DAMAGE));
        }
        Err(error) => return Err(error),
    };
    let reports =
        held.each_shard(&async |env, shard, progress| check::check(env, shard, progress).await)?;
    held.core.shutdown();
    let problems: u64 = reports.iter().map(|(_, report)| report.problems()).sum();
    if args.json {
        print(&format!("{:#}\n", in_json(&reports, &repairs, problems)))?;
    } else {
        print(&(repairs_for_people(&repairs) + &for_people(&reports, problems)))?;
    }
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DAMAGE) })
}

fn in_json(reports: &[(PathBuf, Report)], repairs: &[(PathBuf, Repair)], problems: u64) -> Value {
    let shards: Vec<Value> = reports.iter().map(|(path, report)| of_shard(path, report)).collect();
    let repairs = repairs.iter().filter(|(_, repair)| *repair != Repair::default());
    let repairs = repairs.map(|(path, repair)| {
        let keys = repair.lost_keys.iter().map(|key| key::display(key));
        let ranges = repair.lost_ranges.iter();
        let ranges = ranges.map(|(from, to)| [key::display(from), key::display(to)]);
        let changes = repair.lost_changes.iter();
        let changes = changes.map(|lost| {
            json!({
                "file": file_name(lost.segment),
                "offset": lost.offset,
                "bytes": lost.bytes,
                "first": lost.lost.start,
                "end": lost.lost.end,
            })
        });
        json!({
            "directory": path.display().to_string(),
            "done": repair.done,
            "lost_keys": keys.collect::<Vec<_>>(),
            "lost_ranges": ranges.collect::<Vec<_>>(),
            "lost_changes": changes.collect::<Vec<_>>(),
        })
    });
    json!({ "problems": problems, "shards": shards, "repairs": repairs.collect::<Vec<_>>() })
}

fn repairs_for_people(repairs: &[(PathBuf, Repair)]) -> String {
    let mut text = String::new();
    for (path, repair) in repairs.iter().filter(|(_, repair)| *repair != Repair::default()) {
        writeln!(text, "{} was repaired", path.display()).expect("a string takes all");
        for done in &repair.done {
            writeln!(text, "  {done}").expect("a string takes all");
        }
        for key in &repair.lost_keys {
            writeln!(text, "  LOST the value of {}", key::display(key))
                .expect("a string takes all");
        }
        for (from, to) in &repair.lost_ranges {
            let (from, to) = (key::display(from), key::display(to));
            writeln!(text, "  LOST values of unknown keys from {from} to {to}")
                .expect("a string takes all");
        }
        for lost in &repair.lost_changes {
            let (name, offset, bytes) = (file_name(lost.segment), lost.offset, lost.bytes);
            let first = lost.lost.start;
            // Without a seal or a later frame nobody knows how many there were.
            let last = match lost.lost.end {
                u64::MAX => "on".to_owned(),
                end => format!("to {}", end - 1),
            };
            writeln!(
                text,
                "  LOST changes of unknown keys: number {first} {last}, in {bytes} bytes from byte \
                 {offset} of {name} on"
            )
            .expect("a string takes all");
        }
    }
    text
}

fn of_shard(path: &Path, report: &Report) -> Value {
    let files = report.files.iter().map(|file| {
        let problems = file.problems.iter();
        let problems = problems.map(|it| json!({ "offset": it.offset, "what": it.what }));
        json!({
            "name": file.name,
            "bytes": file.bytes,
            "checked": file.checked,
            "problem_count": file.problem_count,
            "problems": problems.collect::<Vec<_>>(),
        })
    });
    json!({
        "directory": path.display().to_string(),
        "problems": report.problems(),
        "frames": report.frames,
        "records": report.records,
        "blocks": report.blocks,
        "entries": report.entries,
        "pointers": report.pointers,
        "files": files.collect::<Vec<_>>(),
    })
}

fn for_people(reports: &[(PathBuf, Report)], problems: u64) -> String {
    let mut text = String::new();
    for (path, report) in reports {
        writeln!(text, "{}", path.display()).expect("a string takes all");
        for file in &report.files {
            let (name, bytes) = (&file.name, Bytes(file.bytes));
            let checked = if file.checked.is_empty() { "unreadable" } else { &file.checked };
            writeln!(text, "  {name:<28} {bytes:>10}  {checked}").expect("a string takes all");
            for problem in &file.problems {
                let place = problem.offset.map_or(String::new(), |at| format!("byte {at}: "));
                writeln!(text, "    DAMAGED {place}{}", problem.what).expect("a string takes all");
            }
            let hidden = file.problem_count - file.problems.len() as u64;
            if hidden > 0 {
                writeln!(text, "    DAMAGED in {hidden} more places").expect("a string takes all");
            }
        }
    }
    let sum =
        |part: fn(&Report) -> u64| reports.iter().map(|(_, report)| part(report)).sum::<u64>();
    let files = sum(|report| report.files.len() as u64);
    writeln!(
        text,
        "{} shards, {files} files, {} frames, {} records, {} blocks, {} entries, {} pointers",
        reports.len(),
        sum(|report| report.frames),
        sum(|report| report.records),
        sum(|report| report.blocks),
        sum(|report| report.entries),
        sum(|report| report.pointers),
    )
    .expect("a string takes all");
    let verdict = match problems {
        0 => "no damage".to_owned(),
        1 => "DAMAGE in one place".to_owned(),
        more => format!("DAMAGE in {more} places"),
    };
    writeln!(text, "{verdict}").expect("a string takes all");
    text
}
