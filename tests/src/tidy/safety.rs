//! Where `unsafe` may stand, and what stands with it.

use super::Finding;
use super::source::Source;

/// The one crate that may say `unsafe`.
const RUNTIME: &str = "engine/runtime/";

/// Every crate root forbids `unsafe`, but for the runtime's. A test program that brings its own
/// allocator cannot.
pub fn forbidden(source: &Source) -> Vec<Finding> {
    let needs_it = is_crate_root(&source.path)
        && !source.path.starts_with(RUNTIME)
        && !(source.is_test() && source.text.contains("GlobalAlloc"));
    if !needs_it || source.text.lines().any(|line| line == "#![forbid(unsafe_code)]") {
        return Vec::new();
    }
    vec![Finding::new(&source.path, 0, "a crate root without `#![forbid(unsafe_code)]`")]
}

/// Whether cargo compiles the file as a crate of its own.
fn is_crate_root(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let folder = |back: usize| parts.len().checked_sub(back + 1).map(|index| parts[index]);
    match (folder(2), folder(1), folder(0)) {
        (_, Some("src"), Some("lib.rs" | "main.rs")) => true,
        (Some("src"), Some("bin"), Some(name)) => name.ends_with(".rs"),
        // `benches/x.rs`, `tests/x.rs`, but not a folder of that name below `src`.
        (_, Some("benches" | "tests" | "examples"), Some(name)) => {
            name.ends_with(".rs") && !parts.contains(&"src")
        }
        (Some("tests"), Some(_), Some("main.rs")) => true,
        _ => false,
    }
}

/// Every `unsafe` block and implementation has a comment that starts with `SAFETY:` above it.
pub fn unexplained(source: &Source) -> Vec<Finding> {
    if !source.is_rust() {
        return Vec::new();
    }
    let lines: Vec<&str> = source.text.lines().collect();
    let unexplained = lines.iter().enumerate().filter(|(index, line)| {
        let code = line.split("//").next().unwrap_or_default();
        let words = ["{", "impl"].map(|next| format!("unsafe {next}"));
        let is_unsafe = words.iter().any(|word| starts_word(code, word));
        is_unsafe && !line.contains("SAFETY:") && !is_explained(&lines[..*index])
    });
    unexplained
        .map(|(index, _)| Finding::new(&source.path, index + 1, "`unsafe` without `// SAFETY:`"))
        .collect()
}

fn starts_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        !code[..at]
            .chars()
            .next_back()
            .is_some_and(|letter| letter.is_alphanumeric() || "_\"`".contains(letter))
    })
}

/// Whether a safety comment stands before the statement that the line after `above` belongs to.
fn is_explained(above: &[&str]) -> bool {
    let mut is_in_comment = false;
    for line in above.iter().rev().map(|line| line.trim()) {
        if line.starts_with("//") {
            if line.contains("SAFETY:") {
                return true;
            }
            is_in_comment = true;
        } else if is_in_comment || line.is_empty() || line.ends_with([';', '}']) {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_root_that_does_not_forbid_is_found() {
        let forbids = "//! Docs.\n\n#![forbid(unsafe_code)]\n";
        for root in [
            "engine/src/lib.rs",
            "node/src/main.rs",
            "bench/src/bin/x.rs",
            "engine/benches/x.rs",
            "engine/tests/x.rs",
            "tests/tests/system/main.rs",
        ] {
            assert_eq!(forbidden(&Source::new(root, "//! Docs.\n")).len(), 1, "{root}");
            assert_eq!(forbidden(&Source::new(root, forbids)), [], "{root}");
        }
        for other in ["engine/src/a.rs", "engine/src/tests/a.rs", "engine/runtime/src/lib.rs"] {
            assert_eq!(forbidden(&Source::new(other, "")), [], "{other}");
        }
        let allocator = Source::new("protocol/tests/x.rs", "unsafe impl GlobalAlloc for A {}");
        assert_eq!(forbidden(&allocator), []);
    }

    #[test]
    fn an_unexplained_block_is_found() {
        let count = |text: &str| unexplained(&Source::new("a.rs", text)).len();
        let block = concat!("unsa", "fe { x() }");
        assert_eq!(count(block), 1);
        assert_eq!(count(&format!("// SAFETY: why.\nlet a = 1;\n{block}")), 1);
        assert_eq!(count(&format!("// Why.\n{block}")), 1);
        assert_eq!(count(concat!("\nunsa", "fe impl Send for A {}")), 1);
        assert_eq!(count(&format!("// SAFETY: why,\n// and why.\n{block}")), 0);
        assert_eq!(count(&format!("// SAFETY: why.\n#[allow(x)]\nlet a =\n    {block};")), 0);
        assert_eq!(count(&format!("let a = {block}; // SAFETY: why.")), 0);
        assert_eq!(count(concat!("/// unsa", "fe { is a word")), 0);
    }
}
