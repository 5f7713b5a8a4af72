//! What does not belong into the text: leftovers, this machine, and how the text came to be.
//!
//! The words are put together here so that this file does not hold what it looks for.

use super::Finding;
use super::source::Source;

/// Parts of a program that somebody meant to finish.
const LEFTOVERS: [&str; 6] = [
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("d", "bg!"),
    concat!("#[ig", "nore"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
];

/// Folders of one machine.
const FOLDERS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// Parts of the host names of package registries and their mirrors.
const REGISTRIES: [&str; 5] = ["index", "static", "registry", "mirror", "proxy"];

/// Words about how the text came to be, in lower case. The project speaks of itself alone.
const MAKING: [&str; 8] = [
    concat!("l", "lm"),
    concat!("cla", "ude"),
    concat!("chat", "gpt"),
    concat!("sub", "agent"),
    concat!("this ses", "sion"),
    concat!("previous ses", "sion"),
    concat!("acceptance cri", "teria"),
    concat!("prompt engi", "neering"),
];

/// Looks at every line of every text file that people write.
pub fn check(source: &Source) -> Vec<Finding> {
    let is_written = source.has_extension(&["rs", "md", "toml", "sh", "py", "fbs", "yml"]);
    if !is_written && source.path != ".ci/run" {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let mut found = |what: String| findings.push(Finding::new(&source.path, index + 1, what));
        if let Some(leftover) = LEFTOVERS.iter().find(|word| line.contains(**word))
            && source.is_rust()
        {
            found(format!("`{leftover}`: finish it"));
        }
        if let Some(folder) = FOLDERS.iter().find(|folder| holds_folder(line, folder)) {
            found(format!("`{folder}` is a folder of one machine"));
        }
        if let Some(host) = registry_host(line) {
            found(format!("`{host}` is a package registry: name the package, not the host"));
        }
        if let Some(word) = word_of_making(line) {
            found(format!("`{word}`: say what is, not how it came to be"));
        }
    }
    findings
}

/// Whether the line has an absolute path that starts with the folder.
fn holds_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || "._-*}".contains(letter))
    })
}

/// The host of a URL, if one of its words is a registry's.
fn registry_host(line: &str) -> Option<&str> {
    let urls = line.match_indices("://").map(|(at, separator)| &line[at + separator.len()..]);
    let hosts = urls.map(|url| {
        let is_host = |letter: char| letter.is_alphanumeric() || "._-".contains(letter);
        url.split(|letter| !is_host(letter)).next().unwrap_or_default()
    });
    let mut hosts = hosts.filter(|host| host.contains('.'));
    hosts.find(|host| host.split(['.', '-']).any(|part| REGISTRIES.contains(&part)))
}

fn word_of_making(line: &str) -> Option<String> {
    let line = line.to_lowercase();
    let is_whole = |at: usize, length: usize| {
        let joins =
            |letter: Option<char>| letter.is_some_and(|it| it.is_alphanumeric() || it == '_');
        !joins(line[..at].chars().next_back()) && !joins(line[at + length..].chars().next())
    };
    for word in MAKING {
        if line.match_indices(word).any(|(at, _)| is_whole(at, word.len())) {
            return Some(word.to_owned());
        }
    }
    // The number of a report in a tracker.
    line.match_indices("issue ").find_map(|(at, word)| {
        let digits = line[at + word.len()..].trim_start_matches('#');
        let count = digits.bytes().take_while(u8::is_ascii_digit).count();
        (count > 0).then(|| format!("{word}{}", &digits[..count]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, line: &str) -> usize {
        check(&Source::new(path, &format!("fine\n{line}\n"))).len()
    }

    #[test]
    fn leftovers_are_found_in_rust() {
        for word in LEFTOVERS {
            assert_eq!(count("a.rs", &format!("    {word}(\"x\")]")), 1, "{word}");
            assert_eq!(count("a.md", word), 0, "{word}");
        }
        assert_eq!(check(&Source::new("a.rs", LEFTOVERS[2]))[0].line, 1);
    }

    #[test]
    fn paths_of_a_machine_are_found() {
        for folder in FOLDERS {
            assert_eq!(count("a.md", &format!("see `{folder}x`")), 1, "{folder}");
            assert_eq!(count("a.rs", &format!("{folder}x")), 1, "{folder}");
            assert_eq!(count("a.md", &format!("the net{folder}x")), 0, "{folder}");
        }
    }

    #[test]
    fn registries_are_found() {
        let url = |host: &str| format!("see https:{}{host}/x", "//");
        for host in ["index.example.io", "my-mirror.example.org", "proxy.example"] {
            assert_eq!(count("a.toml", &url(host)), 1, "{host}");
        }
        for host in ["github.com/rust/index", "docs.rs", "memcached.example", "index"] {
            assert_eq!(count("a.toml", &url(host)), 0, "{host}");
        }
    }

    #[test]
    fn words_of_making_are_found() {
        for word in MAKING {
            assert_eq!(count("a.md", &format!("It was {}.", word.to_uppercase())), 1, "{word}");
            assert_eq!(count("a.md", &format!("x{word}y")), 0, "{word}");
        }
        assert_eq!(count("a.md", concat!("see iss", "ue #12")), 1);
        assert_eq!(count("a.md", concat!("see iss", "ue 7.")), 1);
        assert_eq!(count("a.md", "at issue here"), 0);
    }
}
