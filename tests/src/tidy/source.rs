//! The files of the tree, and which of their lines are tests.

use std::fs;
use std::path::Path;

/// Folders that hold nothing written by hand.
const FOREIGN_FOLDERS: [&str; 3] = [".git", "larder-data", "venv"];

/// A text file of the repository.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path from the root, with `/` between its parts.
    pub path: String,
    /// What it says.
    pub text: String,
}

impl Source {
    /// A file that need not exist.
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Reads every text file below `root`, in the order of their paths.
    pub fn all(root: &Path) -> Vec<Self> {
        let mut sources = Vec::new();
        read_folder(root, "", &mut sources);
        sources.sort_by(|left, right| left.path.cmp(&right.path));
        sources
    }

    /// Whether its name ends so.
    pub fn has_extension(&self, extensions: &[&str]) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').is_some_and(|(_, extension)| extensions.contains(&extension))
    }

    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.has_extension(&["rs"])
    }

    /// Whether all of it is there for tests only.
    pub fn is_test(&self) -> bool {
        let mut parts = self.path.rsplit('/');
        let name = parts.next().unwrap_or_default();
        name == "tests.rs" || name.ends_with("_tests.rs") || parts.any(|part| part == "tests")
    }

    /// The lines outside `#[cfg(test)]`, with their numbers from 1. Relies on rustfmt's layout.
    pub fn code_lines(&self) -> Vec<(usize, &str)> {
        let mut code = Vec::new();
        let mut lines = self.text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            if line.trim_start().starts_with("#[cfg(test)]") {
                skip_item(&mut lines);
            } else {
                code.push((index + 1, line));
            }
        }
        code
    }
}

/// Passes the item that an attribute stands before.
fn skip_item<'a>(lines: &mut impl Iterator<Item = (usize, &'a str)>) {
    let Some((_, first)) = lines.find(|(_, line)| !line.trim_start().starts_with("#[")) else {
        return;
    };
    let indent = &first[..first.len() - first.trim_start().len()];
    let ends_item = |line: &str| line.ends_with([';', ',']) || line.ends_with('}');
    if ends_item(first) {
        return;
    }
    // The body ends with the first closing bracket that stands as far left as the item does.
    lines.find(|(_, line)| {
        line.strip_prefix(indent).is_some_and(|rest| rest.starts_with('}'))
            || (!first.ends_with('{') && line.ends_with(';'))
    });
}

fn read_folder(folder: &Path, prefix: &str, sources: &mut Vec<Source>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{prefix}: {error}"));
    for entry in entries {
        let entry = entry.unwrap_or_else(|error| panic!("{prefix}: {error}"));
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().unwrap_or_else(|error| panic!("{path}: {error}"));
        if kind.is_dir() {
            let is_target = name.starts_with("target") && prefix.is_empty();
            if !is_target && !FOREIGN_FOLDERS.contains(&name.as_str()) {
                read_folder(&entry.path(), &format!("{path}/"), sources);
            }
        } else if kind.is_file() {
            // What is no UTF-8 is no text of ours.
            if let Ok(text) = fs::read_to_string(entry.path()) {
                sources.push(Source { path, text });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_files_are_known_by_their_place() {
        for (path, is_test) in [
            ("engine/src/shard.rs", false),
            ("engine/src/shard/tests.rs", true),
            ("engine/src/shard/loom_tests.rs", true),
            ("engine/src/shard/tests/open.rs", true),
            ("tests/src/lib.rs", true),
            ("engine/src/contests.rs", false),
        ] {
            assert_eq!(Source::new(path, "").is_test(), is_test, "{path}");
        }
    }

    #[test]
    fn code_goes_on_behind_tests() {
        let text = "\
one
#[cfg(test)]
mod tests;
two
#[cfg(test)]
#[allow(dead_code)]
mod more {
    fn inside() {
    }
}
three
    #[cfg(test)]
    field: u64,
    #[cfg(test)]
    fn short() {}
    #[cfg(test)]
    fn wide(
        argument: u64,
    ) -> u64 {
        argument
    }
four
#[cfg(test)]
use std::{
    fs,
};
five";
        let source = Source::new("a.rs", text);
        let code: Vec<&str> = source.code_lines().into_iter().map(|(_, line)| line).collect();
        assert_eq!(code, ["one", "two", "three", "four", "five"]);
        assert_eq!(source.code_lines().last(), Some(&(27, "five")));
    }

    #[test]
    fn the_tree_is_found() {
        let sources = Source::all(&crate::tidy::root());
        for path in ["Cargo.toml", ".ci/run", "tests/src/tidy/source.rs"] {
            assert!(sources.iter().any(|source| source.path == path), "{path}");
        }
        assert!(!sources.iter().any(|source| source.path.starts_with("target")));
    }
}
