//! A plan as a shell script that does what applying it would.

use std::io;
use std::path::Path;

use super::quoted;
use crate::plan::{SettingKind, TunePlan, TuneSetting};
use crate::tree::{SystemTree, unfinished_name};

/// The script. It changes what differs from the plan, and nothing else.
///
/// # Errors
/// If it cannot be said where a file is (see [`SystemTree::path_of`]).
pub fn script(plan: &TunePlan, tree: &SystemTree) -> io::Result<String> {
    let mut text = format!(
        "#!/bin/sh\n\
         # What `larder tune --apply` does on this machine (mode {}: requests on CPUs {},\n\
         # interrupts on CPUs {}). This script keeps no old values; --apply does.\nset -eu\n",
        plan.mode, plan.compute, plan.interrupts
    );
    let mut area = None;
    for setting in plan.differences() {
        if area != Some(setting.area) {
            text.push_str(&format!("\n# --- {} ---\n", setting.area.name()));
            area = Some(setting.area);
        }
        text.push_str(&lines(setting, tree)?);
    }
    if area.is_none() {
        text.push_str("\n# Nothing differs from the plan.\n");
    }
    for note in &plan.notes {
        text.push_str(&format!("\n# Note: {}\n", note.replace('\n', " ")));
    }
    Ok(text)
}

fn lines(setting: &TuneSetting, tree: &SystemTree) -> io::Result<String> {
    let quoted_path = |path: &Path| quoted(&path.display().to_string());
    let mut text = format!("# {}\n", setting.reason.replace('\n', " "));
    if setting.kind == SettingKind::File {
        let path = quoted_path(&tree.name_of(&setting.path)?);
        let new = quoted_path(&tree.name_of(&unfinished_name(&setting.path))?);
        let folder = setting.path.rsplit_once('/').map_or("/", |(folder, _)| folder);
        let content = quoted(&setting.value);
        text.push_str(&format!("mkdir -p {}\n", quoted_path(&tree.path_of(folder)?)));
        text.push_str(&format!("printf %s {content} > {new}\n"));
        text.push_str(&format!("mv {new} {path}\n"));
    } else {
        let path = quoted_path(&tree.path_of(&setting.path)?);
        let shown = setting.shown();
        let value = quoted(if tree.is_running() { &setting.value } else { shown.trim_end() });
        let or = if setting.may_be_refused {
            " || echo 'kept by the kernel: '".to_owned() + &path + " >&2"
        } else {
            String::new()
        };
        text.push_str(&format!("printf '%s\\n' {value} > {path}{or}\n"));
    }
    if let Some(command) = setting.then.as_ref().filter(|_| tree.is_running()) {
        text.push_str(&format!("{command}\n"));
    }
    Ok(text)
}
