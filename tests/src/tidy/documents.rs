//! Documents that say what code does carry a checksum of that code. When the code changes, the
//! document is read again, corrected if need be, and blessed with the new checksum.
//!
//! In the document stands one line, with the files that it describes; a `*` stands for any file of
//! that folder that is no test:
//!
//! ```text
//! <!-- code: crc32c 0x1b2c3d4e of engine/src/entry.rs engine/src/table/*.rs -->
//! ```

use super::Finding;
use super::source::Source;

/// The documents that must carry a checksum, and files that each must at least describe.
pub const DOCUMENTS: [(&str, &[&str]); 2] = [
    (
        "engine/FORMAT.md",
        &[
            "engine/src/entry.rs",
            "engine/src/key.rs",
            "engine/src/manifest/codec.rs",
            "engine/src/superblock.rs",
            "engine/src/index/table/format.rs",
            "engine/src/value_log/frame.rs",
            "engine/src/value_log/moves.rs",
            "engine/src/value_log/record.rs",
            "engine/src/value_log/segment.rs",
        ],
    ),
    (
        "protocol/PROTOCOL.md",
        &[
            "protocol/src/memcached/binary/opcode.rs",
            "protocol/src/memcached/binary/parse.rs",
            "protocol/src/memcached/error.rs",
            "protocol/src/memcached/parse/mod.rs",
            "protocol/src/memcached/parse/meta.rs",
            "protocol/src/memcached/reply/mod.rs",
            "protocol/src/native/header.rs",
            "protocol/src/native/item.rs",
            "protocol/src/native/page.rs",
            "protocol/src/native/reply.rs",
            "protocol/src/native/request.rs",
            "protocol/src/native/status.rs",
        ],
    ),
];

const OPENING: &str = "<!-- code: crc32c ";
const CLOSING: &str = " -->";

/// What the line in a document says.
#[derive(Debug, PartialEq, Eq)]
struct Tie<'a> {
    line: &'a str,
    number: usize,
    checksum: &'a str,
    patterns: Vec<&'a str>,
}

impl Tie<'_> {
    fn expected(&self, checksum: u32) -> String {
        format!("{OPENING}{checksum:#010x} of {}{CLOSING}", self.patterns.join(" "))
    }
}

/// Compares the checksum in a document with its code. `sources` are all files of the tree.
pub fn check(sources: &[Source], document: &str, must_describe: &[&str]) -> Vec<Finding> {
    let finding = |line, what: String| vec![Finding::new(document, line, what)];
    let Some(source) = sources.iter().find(|source| source.path == document) else {
        return finding(0, "the document is missing".to_owned());
    };
    let Some(tie) = tie(&source.text) else {
        let example = format!("{OPENING}0x00000000 of FILE FILE{CLOSING}");
        return finding(0, format!("no line `{example}` that names the code it describes"));
    };
    let files = match described(sources, &tie.patterns) {
        Ok(files) => files,
        Err(pattern) => return finding(tie.number, format!("`{pattern}` matches no file")),
    };
    let is_described = |wanted: &str| files.iter().any(|file| file.path == wanted);
    if let Some(missing) = must_describe.iter().find(|wanted| !is_described(wanted)) {
        return finding(tie.number, format!("`{missing}` is not among the files it describes"));
    }
    let expected = tie.expected(checksum(&files));
    if expected == tie.line {
        return Vec::new();
    }
    let what = format!(
        "the code that it describes has changed. Correct the document if it is wrong now, then run \
         `LARDER_TIDY_BLESS=1 cargo test -p larder-tests tidy`, which writes\n{expected}"
    );
    finding(tie.number, what)
}

/// The document's text with the checksum that belongs there; `None` if it cannot be found out.
pub fn blessed(sources: &[Source], document: &str) -> Option<String> {
    let source = sources.iter().find(|source| source.path == document)?;
    let tie = tie(&source.text)?;
    let files = described(sources, &tie.patterns).ok()?;
    Some(source.text.replacen(tie.line, &tie.expected(checksum(&files)), 1))
}

fn tie(text: &str) -> Option<Tie<'_>> {
    text.lines().enumerate().find_map(|(index, line)| {
        let inner = line.strip_prefix(OPENING)?.strip_suffix(CLOSING)?;
        let (checksum, patterns) = inner.split_once(" of ")?;
        Some(Tie { line, number: index + 1, checksum, patterns: patterns.split(' ').collect() })
    })
}

/// The files that the patterns name, in the order of their paths; the error is a pattern that
/// names none.
fn described<'a>(sources: &'a [Source], patterns: &[&'a str]) -> Result<Vec<&'a Source>, &'a str> {
    let mut files: Vec<&Source> = Vec::new();
    for pattern in patterns {
        let matching = sources.iter().filter(|source| matches(pattern, source));
        let before = files.len();
        files.extend(matching);
        if files.len() == before {
            return Err(pattern);
        }
    }
    files.sort_by(|left, right| left.path.cmp(&right.path));
    files.dedup_by(|left, right| left.path == right.path);
    Ok(files)
}

fn matches(pattern: &str, source: &Source) -> bool {
    let Some((before, behind)) = pattern.split_once('*') else {
        return source.path == pattern;
    };
    let inner = source.path.strip_prefix(before).and_then(|rest| rest.strip_suffix(behind));
    inner.is_some_and(|name| !name.contains('/')) && !source.is_test()
}

/// Of the files' names and code; their tests do not count.
fn checksum(files: &[&Source]) -> u32 {
    let mut checksum = 0;
    for file in files {
        checksum = crc32c::crc32c_append(checksum, file.path.as_bytes());
        for (_, line) in file.code_lines() {
            checksum = crc32c::crc32c_append(checksum, b"\n");
            checksum = crc32c::crc32c_append(checksum, line.as_bytes());
        }
        checksum = crc32c::crc32c_append(checksum, &[0]);
    }
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(document: &str, code: &str) -> Vec<Source> {
        vec![
            Source::new("D.md", document),
            Source::new("src/a.rs", code),
            Source::new("src/b.rs", "b"),
            Source::new("src/tests.rs", "test"),
        ]
    }

    const UNBLESSED: &str = "Text.\n<!-- code: crc32c 0x00000000 of src/*.rs -->\nMore.\n";

    #[test]
    fn a_change_of_the_code_is_found_until_it_is_blessed() {
        let before = tree(UNBLESSED, "one");
        assert_eq!(check(&before, "D.md", &["src/a.rs"]).len(), 1);
        let text = blessed(&before, "D.md").expect("it can be blessed");
        assert!(text.starts_with("Text.\n<!-- code: crc32c 0x") && text.ends_with("\nMore.\n"));
        assert_eq!(check(&tree(&text, "one"), "D.md", &["src/a.rs"]), []);
        let tested = "one\n#[cfg(test)]\nmod tests {\n    x\n}\n";
        assert_eq!(check(&tree(&text, tested), "D.md", &[]), []);

        let found = check(&tree(&text, "two"), "D.md", &["src/a.rs"]);
        assert_eq!((found.len(), found[0].line), (1, 2));
        assert!(found[0].what.contains("LARDER_TIDY_BLESS=1"), "{}", found[0].what);
        let mut renamed = tree(&text, "one");
        renamed[1].path = "src/c.rs".to_owned();
        assert_eq!(check(&renamed, "D.md", &[]).len(), 1);
    }

    #[test]
    fn a_document_that_is_not_tied_is_found() {
        assert_eq!(check(&[], "D.md", &[])[0].what, "the document is missing");
        assert!(check(&tree("Text.", ""), "D.md", &[])[0].what.starts_with("no line"));
        let nothing = UNBLESSED.replace("src/*.rs", "src/*.rs gone/*.rs");
        assert_eq!(check(&tree(&nothing, ""), "D.md", &[])[0].what, "`gone/*.rs` matches no file");
        let narrow = UNBLESSED.replace("src/*.rs", "src/b.rs");
        let narrow = tree(&blessed(&tree(&narrow, ""), "D.md").expect("a tie"), "");
        assert_eq!(check(&narrow, "D.md", &["src/b.rs"]), []);
        let found = check(&narrow, "D.md", &["src/a.rs"]);
        assert_eq!(found[0].what, "`src/a.rs` is not among the files it describes");
    }
}
