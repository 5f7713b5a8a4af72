//! One word, one meaning: no public type has a name that another one has.

use std::collections::BTreeMap;

use super::Finding;
use super::source::Source;

/// The names that stand in several places, and in how many. A name goes when it stands in one; none
/// comes, and no number grows.
const KNOWN: [(&str, usize); 11] = [
    ("Arithmetic", 2),
    ("CpuList", 2),
    ("Delete", 2),
    ("Found", 2),
    ("Operation", 2),
    ("Outcome", 2),
    ("Parsed", 2),
    ("Place", 2),
    ("Section", 2),
    ("StartError", 2),
    ("Store", 2),
];

/// Every public type whose name stands in more places than it may.
pub fn shared(sources: &[Source]) -> Vec<Finding> {
    check(sources, &KNOWN)
}

fn check(sources: &[Source], known: &[(&str, usize)]) -> Vec<Finding> {
    let mut places: BTreeMap<&str, Vec<(&str, usize)>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.is_rust() && !source.is_test()) {
        for (number, line) in source.code_lines() {
            if let Some(name) = public_type(line) {
                places.entry(name).or_default().push((&source.path, number));
            }
        }
    }
    let allowed = |name: &str| known.iter().find(|(known, _)| *known == name).map_or(1, |k| k.1);
    let mut findings = Vec::new();
    for (name, places) in &places {
        if places.len() > allowed(name) {
            findings.extend(places.iter().map(|(path, line)| {
                let what = format!("`{name}` names {} public types", places.len());
                Finding::new(path, *line, what)
            }));
        }
    }
    for (name, count) in known {
        let found = places.get(name).map_or(0, Vec::len);
        if found < *count {
            let what = format!("`{name}` stands in {found} places only: say so in KNOWN");
            findings.push(Finding::new("tests/src/tidy/names.rs", 0, what));
        }
    }
    findings
}

/// The name of the type that a line makes public. Relies on rustfmt's layout.
fn public_type(line: &str) -> Option<&str> {
    let declared = line.trim_start().strip_prefix("pub ")?;
    let declared = declared.strip_prefix("unsafe ").unwrap_or(declared);
    let kinds = ["struct ", "enum ", "trait ", "union "];
    let named = kinds.iter().find_map(|kind| declared.strip_prefix(kind))?;
    named.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_two_places_is_found() {
        let one = Source::new("a.rs", "pub struct Place<'a> {\npub(crate) struct State;\n");
        let other = Source::new("b/c.rs", "enum State {}\n    pub enum Place {\n");
        let test = Source::new("b/tests.rs", "pub struct Place;");
        let both = [one.clone(), other, test];
        let found = check(&both, &[]);
        let places: Vec<(&str, usize)> =
            found.iter().map(|finding| (finding.path.as_str(), finding.line)).collect();
        assert_eq!(places, [("a.rs", 1), ("b/c.rs", 2)]);
        assert_eq!(check(&both, &[("Place", 2)]), []);
        assert_eq!(check(&both, &[("Place", 3)]).len(), 1, "the list only shrinks");
        assert_eq!(check(&[one], &[]), []);
    }
}
