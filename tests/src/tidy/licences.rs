//! Licences and versions of the packages that the project is built on, held against `deny.toml`.
//!
//! The file is that of cargo-deny, which checks the same and more where it is installed.

use serde_json::Value;
use toml::Table;

/// A package of the dependency tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence as an SPDX expression; empty if it states none.
    pub licence: String,
}

/// What `deny.toml` allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Licences.
    pub licences: Vec<String>,
    /// Packages that may be there beside another version: `name`, `name@1.2.3`, or `name@1`.
    pub duplicates: Vec<String>,
}

impl Policy {
    fn skips(&self, name: &str, version: &str) -> bool {
        self.duplicates.iter().any(|skip| match skip.split_once('@') {
            None => skip == name,
            Some((skipped, prefix)) => {
                let rest = version.strip_prefix(prefix);
                skipped == name && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }
        })
    }
}

/// The packages in the output of `cargo metadata --format-version 1`.
pub fn packages(metadata: &str) -> Result<Vec<Package>, String> {
    let metadata: Value = serde_json::from_str(metadata).map_err(|error| error.to_string())?;
    let packages = metadata["packages"].as_array().ok_or("no packages in the metadata")?;
    let text = |package: &Value, field: &str| package[field].as_str().unwrap_or("").to_owned();
    let package = |package: &Value| Package {
        name: text(package, "name"),
        version: text(package, "version"),
        licence: text(package, "license"),
    };
    Ok(packages.iter().map(package).collect())
}

/// Reads `deny.toml`.
pub fn policy(deny: &str) -> Result<Policy, String> {
    let deny: Table = deny.parse().map_err(|error| format!("{error}"))?;
    let list = |section: &str, field: &str| {
        let list = deny.get(section).and_then(|section| section.get(field)?.as_array());
        list.cloned().ok_or(format!("no list `{field}` in [{section}]"))
    };
    let name = |entry: &toml::Value| {
        let name = entry.as_str().or_else(|| entry.get("crate")?.as_str());
        name.map(str::to_owned).ok_or(format!("`{entry}` names no package"))
    };
    let licences = list("licenses", "allow")?.iter().map(name).collect::<Result<_, _>>()?;
    let duplicates = list("bans", "skip")?.iter().map(name).collect::<Result<_, _>>()?;
    Ok(Policy { licences, duplicates })
}

/// Packages whose licence is not allowed, or that are there in several versions.
pub fn check(packages: &[Package], policy: &Policy) -> Vec<String> {
    let mut findings = Vec::new();
    for package in packages {
        let Package { name, version, licence } = package;
        match is_allowed(licence, &policy.licences) {
            Some(true) => {}
            Some(false) => {
                findings.push(format!("{name} {version}: licence `{licence}` is not in deny.toml"));
            }
            None => {
                findings.push(format!("{name} {version}: `{licence}` is no licence expression"));
            }
        }
        let is_other = |other: &&Package| other.name == *name && other.version != *version;
        let is_skipped = |package: &Package| policy.skips(&package.name, &package.version);
        let others = packages.iter().filter(is_other).filter(|other| !is_skipped(other));
        if others.count() > 0 && !is_skipped(package) {
            let what = "there are other versions of it that deny.toml does not skip";
            findings.push(format!("{name} {version}: {what}"));
        }
    }
    findings
}

/// Whether the expression can be met with the given licences alone. `None` if it is no expression.
fn is_allowed(expression: &str, licences: &[String]) -> Option<bool> {
    // `/` is an older way to write OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let allowed = any_of(&mut words, licences)?;
    words.next().is_none().then_some(allowed)
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>, licences: &[String]) -> Option<bool> {
    let mut allowed = all_of(words, licences)?;
    while words.next_if_eq(&"OR").is_some() {
        allowed |= all_of(words, licences)?;
    }
    Some(allowed)
}

fn all_of(words: &mut Words<'_>, licences: &[String]) -> Option<bool> {
    let mut allowed = licence(words, licences)?;
    while words.next_if_eq(&"AND").is_some() {
        allowed &= licence(words, licences)?;
    }
    Some(allowed)
}

fn licence(words: &mut Words<'_>, licences: &[String]) -> Option<bool> {
    let mut name = match words.next()? {
        "(" => {
            let allowed = any_of(words, licences)?;
            return words.next_if_eq(&")").map(|_| allowed);
        }
        "OR" | "AND" | "WITH" | ")" => return None,
        name => name.to_owned(),
    };
    if words.next_if_eq(&"WITH").is_some() {
        name = format!("{name} WITH {}", words.next()?);
    }
    Some(licences.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(expression: &str) -> Option<bool> {
        is_allowed(expression, &["MIT".to_owned(), "Zlib".to_owned()])
    }

    #[test]
    fn expressions_are_understood() {
        for expression in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "MIT AND Zlib",
            "(MIT OR GPL-3.0) AND Zlib",
            "GPL-3.0 AND BSD OR MIT",
            "Apache-2.0 WITH LLVM-exception OR MIT",
        ] {
            assert_eq!(allowed(expression), Some(true), "{expression}");
        }
        for expression in ["GPL-3.0", "MIT AND GPL-3.0", "MIT WITH x", "(GPL-3.0)", "mit"] {
            assert_eq!(allowed(expression), Some(false), "{expression}");
        }
        for expression in ["", "MIT OR", "(MIT", "MIT)", "AND MIT", "MIT Zlib", "MIT WITH"] {
            assert_eq!(allowed(expression), None, "{expression}");
        }
    }

    #[test]
    fn a_wrong_licence_and_a_second_version_are_found() {
        let package = |name: &str, version: &str, licence: &str| Package {
            name: name.to_owned(),
            version: version.to_owned(),
            licence: licence.to_owned(),
        };
        let text = "[licenses]\nallow = [\"MIT\"]\n[bans]\nskip = [{ crate = \"a@1\" }, \"c\"]";
        let policy = policy(text).expect("a policy");
        assert_eq!(policy.duplicates, ["a@1", "c"]);
        let tree = |lines: &[&str]| -> Vec<Package> {
            let parts = lines.iter().map(|line| line.split_once(' ').expect("two words"));
            parts.map(|(name, version)| package(name, version, "MIT")).collect()
        };
        let fine = tree(&["a 1.0.0", "a 2.0.0", "b 1.0.0", "c 1.0.0", "c 2.0.0"]);
        assert_eq!(check(&fine, &policy), Vec::<String>::new());
        let found = check(&tree(&["a 1.0.0", "a 2.0.0", "a 10.0.0", "b 1.0.0"]), &policy);
        assert!(found.len() == 2 && found[0].starts_with("a 2.0.0: there are other"), "{found:?}");
        let found = check(&[package("x", "1.0.0", "GPL-3.0"), package("y", "1.0.0", "")], &policy);
        assert!(found[0].contains("not in deny.toml"), "{found:?}");
        assert!(found[1].contains("no licence expression"), "{found:?}");
    }

    #[test]
    fn metadata_is_read() {
        let text = r#"{"packages":[{"name":"a","version":"1.0.0","license":"MIT","x":[1]},
            {"name":"b","version":"2.0.0","license":null}]}"#;
        let found = packages(text).expect("packages");
        assert_eq!((found[0].licence.as_str(), found[1].licence.as_str()), ("MIT", ""));
        assert!(packages("{}").is_err());
        assert!(packages("").is_err());
        assert!(policy("[licenses]").is_err());
    }
}
