//! Plans of known machines, as text. `LARDER_PERFTUNE_BLESS=1` writes what the code plans now.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::builder::Tree;
use super::machines::{DATA, NAMES, machine};
use crate::cpu_mask::CpuMask;
use crate::options::{TuneMode, TuneOptions};
use crate::plan::{TunePlan, decide};
use crate::print;

fn compare(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/tests/golden").join(name);
    if std::env::var_os("LARDER_PERFTUNE_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, text).expect("written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expected, "{name} has changed. It is now:\n{text}");
}

fn options(mode: TuneMode) -> TuneOptions {
    TuneOptions { mode: Some(mode), dir: vec![DATA.to_owned()], ..TuneOptions::default() }
}

/// A plan in short: settings whose paths differ by one number, and that get the same value, are one
/// line. `=` is so already, `>` is to be set, `?` is to be set if the kernel lets it.
fn in_short(plan: &TunePlan) -> String {
    let mut text = format!(
        "mode {}\nrequests on CPUs {}\ninterrupts on CPUs {}\n",
        plan.mode, plan.compute, plan.interrupts
    );
    let mut area = None;
    let mut groups: Vec<(String, char, String)> = Vec::new();
    let mut numbers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for setting in &plan.settings {
        if area != Some(setting.area) {
            area = Some(setting.area);
            groups.push((format!("\n[{}]", setting.area.name()), '\0', String::new()));
        }
        let mark = match (setting.differs(), setting.may_be_refused) {
            (false, _) => '=',
            (true, true) => '?',
            (true, false) => '>',
        };
        let (pattern, number) = pattern(&setting.path);
        let value = setting.value.trim_end().replace('\n', "\n    ");
        let group = (pattern, mark, value);
        let index = groups.iter().position(|known| *known == group).unwrap_or_else(|| {
            groups.push(group);
            groups.len() - 1
        });
        numbers.entry(index).or_default().extend(number);
    }
    for (index, (pattern, mark, value)) in groups.iter().enumerate() {
        if *mark == '\0' {
            text.push_str(&format!("{pattern}\n"));
            continue;
        }
        let numbers = CpuMask::of(numbers.get(&index).into_iter().flatten().copied());
        let path = pattern.replace('*', &format!("{{{numbers}}}"));
        text.push_str(&format!("{mark} {path} {value}\n"));
    }
    plan.notes.iter().for_each(|note| text.push_str(&format!("\nnote: {note}\n")));
    text
}

/// The path with its last number taken out.
fn pattern(path: &str) -> (String, Option<usize>) {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let Some(end) = path.bytes().rposition(|byte| is_digit(&byte)).map(|at| at + 1) else {
        return (path.to_owned(), None);
    };
    let start = path[..end].bytes().rposition(|byte| !is_digit(&byte)).map_or(0, |at| at + 1);
    let number = path[start..end].parse().ok();
    (format!("{}*{}", &path[..start], &path[end..]), number)
}

fn golden(name: &str) {
    let tree: Tree = machine(name).build();
    let read = tree.machine();
    for mode in [TuneMode::Auto, TuneMode::Mq, TuneMode::Sq, TuneMode::SqSplit] {
        let text = match decide(&read, &options(mode)) {
            Ok(plan) => in_short(&plan),
            Err(error) => format!("refused: {error}\n"),
        };
        compare(&format!("{name}-{mode}.txt"), &text);
    }
    let plan = decide(&read, &options(TuneMode::Auto)).expect("a plan");
    compare(&format!("{name}-show.txt"), &print::machine(&read, &plan));
}

#[test]
fn plans_of_known_machines_are_as_they_were_read_by_people() {
    NAMES.into_iter().for_each(golden);
}

#[test]
fn the_script_and_the_table_of_a_small_machine_are_as_they_were_read_by_people() {
    let tree = machine("small-vm").build();
    let plan = decide(&tree.machine(), &options(TuneMode::Sq)).expect("a plan");
    let root = tree.path().display().to_string();
    let script = print::script(&plan, &tree.files()).expect("all files have a place");
    compare("small-vm-sq-script.txt", &script.replace(&root, "/ROOT"));
    compare("small-vm-sq-check.txt", &print::differences(&plan));
}
