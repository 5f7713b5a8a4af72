//! What is printed: the machine, a plan as a script, and what differs from it.

mod differences;
mod machine;
mod script;
mod table;

pub use differences::differences;
pub use machine::machine;
pub use script::script;

/// A word as a shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-,:=+@%".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_safe_in_a_shell() {
        for (word, expected) in [
            ("/sys/a-b_c.d:e", "/sys/a-b_c.d:e"),
            ("", "''"),
            ("a b", "'a b'"),
            ("$(x)`y`", "'$(x)`y`'"),
            ("it's", r"'it'\''s'"),
            ("*", "'*'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
