//! How long lines, functions and files may be.

use super::Finding;
use super::source::Source;

/// Characters in a line.
pub const LINE_MAX: usize = 100;
/// Lines in a function, outside tests.
pub const FUNCTION_MAX: usize = 70;
/// Lines in a file, without its tests.
pub const FILE_MAX: usize = 800;
/// Lines in a file of tests.
pub const TEST_FILE_MAX: usize = 1500;

/// Lines that are too long. An inline table of TOML is one line by that format's rules, and passes.
pub fn long_lines(source: &Source) -> Vec<Finding> {
    if !source.has_extension(&["rs", "toml", "sh", "py"]) && source.path != ".ci/run" {
        return Vec::new();
    }
    let is_toml = source.has_extension(&["toml"]);
    let long = source.text.lines().enumerate().filter(|(_, line)| {
        line.chars().count() > LINE_MAX && !(is_toml && line.contains("{ ") && line.contains('}'))
    });
    long.map(|(index, line)| {
        let what = format!("{} columns, over {LINE_MAX}", line.chars().count());
        Finding::new(&source.path, index + 1, what)
    })
    .collect()
}

/// A file that is too long.
pub fn long_file(source: &Source) -> Vec<Finding> {
    if !source.is_rust() {
        return Vec::new();
    }
    let (lines, most) = if source.is_test() {
        (source.text.lines().count(), TEST_FILE_MAX)
    } else {
        (source.code_lines().len(), FILE_MAX)
    };
    if lines <= most {
        return Vec::new();
    }
    let what = format!("{lines} lines, over {most}: split it by what its parts do");
    vec![Finding::new(&source.path, 0, what)]
}

/// Functions that are too long. Relies on rustfmt's layout: a body ends with the first closing
/// bracket that stands as far left as the function does.
pub fn long_functions(source: &Source) -> Vec<Finding> {
    if !source.is_rust() || source.is_test() {
        return Vec::new();
    }
    let lines = source.code_lines();
    let mut findings = Vec::new();
    for (index, (number, line)) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let length = function_length(lines[index..].iter().map(|(_, line)| *line));
        if length > FUNCTION_MAX {
            let what = format!("`{name}` has {length} lines, over {FUNCTION_MAX}");
            findings.push(Finding::new(&source.path, *number, what));
        }
    }
    findings
}

/// The name of the function whose declaration starts in this line.
fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    loop {
        if let Some(declared) = rest.strip_prefix("fn ") {
            return declared
                .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
                .next();
        }
        let (word, behind) = rest.split_once(' ')?;
        let is_modifier = matches!(word, "pub" | "const" | "async" | "unsafe" | "extern")
            || word.starts_with("pub(")
            || word.starts_with('"')
            || (word.ends_with(')') && line.contains("pub(in "));
        rest = if is_modifier || word == "in" { behind } else { return None };
    }
}

/// Lines from the declaration, which comes first, to the end of the body.
fn function_length<'a>(mut lines: impl Iterator<Item = &'a str>) -> usize {
    let first = lines.next().unwrap_or_default();
    let indent = &first[..first.len() - first.trim_start().len()];
    let mut has_body = first.ends_with('{');
    if !has_body && first.ends_with([';', '}']) {
        return 1;
    }
    let mut length = 1;
    for line in lines {
        length += 1;
        let is_end = line.strip_prefix(indent).is_some_and(|rest| rest == "}");
        // A declaration without a body, over several lines.
        if is_end || (!has_body && line.ends_with(';')) {
            break;
        }
        has_body |= line.ends_with('{');
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(text: &str) -> Source {
        Source::new("engine/src/a.rs", text)
    }

    #[test]
    fn a_line_of_101_columns_is_found() {
        let fits = "é".repeat(LINE_MAX);
        assert_eq!(long_lines(&rust(&format!("{fits}\n{fits}\n"))), []);
        let found = long_lines(&rust(&format!("{fits}\n{fits}x\n")));
        assert_eq!(found, [Finding::new("engine/src/a.rs", 2, "101 columns, over 100")]);
        let table = format!("a = {{ b = \"{fits}\" }}");
        assert_eq!(long_lines(&Source::new("Cargo.toml", &table)), []);
        assert_eq!(long_lines(&Source::new("Cargo.toml", &format!("# {fits}"))).len(), 1);
        assert_eq!(long_lines(&Source::new("README.md", &table)), []);
    }

    #[test]
    fn a_file_of_801_lines_is_found() {
        let code = "x\n".repeat(FILE_MAX);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert_eq!(long_file(&rust(&format!("{code}{tests}"))), []);
        assert_eq!(long_file(&rust(&format!("{tests}x\n{code}"))).len(), 1);
        assert_eq!(long_file(&Source::new("a/tests.rs", &format!("{code}x\n"))), []);
        assert_eq!(long_file(&Source::new("a/tests.rs", &format!("{code}{code}"))).len(), 1);
    }

    #[test]
    fn a_function_of_71_lines_is_found() {
        let function =
            |head: &str, body: usize| format!("{head}{}    }}\n", "        x\n".repeat(body));
        for head in [
            "    fn f() {\n",
            "    pub fn f() {\n",
            "    pub(crate) const fn f() {\n",
            "    pub(in crate::a) async unsafe fn f() {\n",
            "    extern \"C\" fn f() {\n",
        ] {
            assert_eq!(long_functions(&rust(&function(head, FUNCTION_MAX - 2))), [], "{head}");
            let found = long_functions(&rust(&function(head, FUNCTION_MAX - 1)));
            assert_eq!(found.len(), 1, "{head}");
            assert_eq!(found[0].what, "`f` has 71 lines, over 70");
        }
        let wide = function("    fn f(\n        a: u64,\n    ) {\n", FUNCTION_MAX - 3);
        assert_eq!(long_functions(&rust(&wide)).len(), 1);
        let declared = format!("    fn f(\n        a: u64,\n    );\n{}", "    x\n".repeat(99));
        assert_eq!(long_functions(&rust(&declared)), []);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function("    fn f() {\n", 99));
        assert_eq!(long_functions(&rust(&tests)), []);
    }
}
