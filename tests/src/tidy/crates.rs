//! Which crate of the workspace may use which: downwards only, and nothing sideways.

use toml::Table;

use super::Finding;
use super::source::Source;

/// The crates, and those of ours that each may use.
const MAY_USE: [(&str, &[&str]); 8] = [
    ("larder-runtime", &[]),
    ("larder-protocol", &[]),
    ("larder-engine", &["larder-runtime"]),
    ("larder-client", &["larder-protocol"]),
    ("larder-perftune", &["larder-runtime"]),
    (
        "larder-bench",
        &["larder-client", "larder-engine", "larder-perftune", "larder-protocol", "larder-runtime"],
    ),
    (
        "larder",
        &[
            "larder-bench",
            "larder-client",
            "larder-engine",
            "larder-perftune",
            "larder-protocol",
            "larder-runtime",
        ],
    ),
    (
        "larder-tests",
        &[
            "larder",
            "larder-bench",
            "larder-client",
            "larder-engine",
            "larder-perftune",
            "larder-protocol",
            "larder-runtime",
        ],
    ),
];

/// Looks at one `Cargo.toml`.
pub fn check(source: &Source) -> Vec<Finding> {
    if source.path.rsplit('/').next() != Some("Cargo.toml") {
        return Vec::new();
    }
    let finding = |what: String| vec![Finding::new(&source.path, 0, what)];
    let manifest: Table = match source.text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return finding(format!("no TOML: {error}")),
    };
    let Some(name) = manifest.get("package").and_then(|package| package.get("name")?.as_str())
    else {
        return Vec::new();
    };
    let Some((_, allowed)) = MAY_USE.iter().find(|(known, _)| *known == name) else {
        return finding(format!(
            "`{name}` is new: say in tests/src/tidy/crates.rs what it may use"
        ));
    };
    let wrong = dependencies(&manifest).into_iter().filter(|used| {
        (used == "larder" || used.starts_with("larder-")) && !allowed.contains(&used.as_str())
    });
    wrong.flat_map(|used| finding(format!("`{name}` must not use `{used}`"))).collect()
}

/// The packages in all dependency tables, those of targets included.
fn dependencies(manifest: &Table) -> Vec<String> {
    const TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];
    let targets = manifest.get("target").and_then(|targets| targets.as_table());
    let targets =
        targets.into_iter().flat_map(Table::values).filter_map(|target| target.as_table());
    let mut names = Vec::new();
    for owner in targets.chain([manifest]) {
        for table in TABLES.iter().filter_map(|name| owner.get(*name)?.as_table()) {
            for (key, value) in table {
                let renamed = value.get("package").and_then(|package| package.as_str());
                names.push(renamed.unwrap_or(key).to_owned());
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &str, rest: &str) -> usize {
        let text = format!("[package]\nname = \"{name}\"\n{rest}");
        check(&Source::new("x/Cargo.toml", &text)).len()
    }

    #[test]
    fn a_wrong_direction_is_found() {
        let engine = "larder-engine.workspace = true\nlibc.workspace = true\n";
        assert_eq!(count("larder", &format!("[dependencies]\n{engine}")), 0);
        for table in ["dependencies", "dev-dependencies", "target.'cfg(loom)'.dependencies"] {
            assert_eq!(count("larder-protocol", &format!("[{table}]\n{engine}")), 1, "{table}");
        }
        let renamed = "[dependencies]\nnode = { package = \"larder\", path = \"../node\" }\n";
        assert_eq!(count("larder-engine", renamed), 1);
        assert_eq!(count("larder-tests", renamed), 0);
    }

    #[test]
    fn a_crate_without_a_rule_is_found() {
        assert_eq!(count("larder-new", ""), 1);
        assert_eq!(check(&Source::new("x/Cargo.toml", "[package")).len(), 1);
        assert_eq!(check(&Source::new("Cargo.toml", "[workspace]\n")), []);
        assert_eq!(check(&Source::new("x/other.toml", "[package")), []);
    }

    #[test]
    fn the_rules_have_no_circle() {
        for (index, (name, allowed)) in MAY_USE.iter().enumerate() {
            for used in *allowed {
                let earlier = MAY_USE[..index].iter().any(|(known, _)| known == used);
                assert!(earlier, "{name} uses {used}, which comes later");
            }
        }
    }
}
