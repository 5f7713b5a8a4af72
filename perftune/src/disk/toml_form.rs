//! The figures as TOML.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::{DiskEntry, DiskProperties, DraftDisk, FIGURES, FigureError, finish};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    disk: Vec<Spanned<BTreeMap<String, Spanned<Value>>>>,
}

/// Reads an `io-properties.toml`.
///
/// # Errors
/// The line, the key, and what is wrong with it.
pub fn from_toml(text: &str) -> Result<Vec<DiskProperties>, FigureError> {
    Ok(entries(text)?.into_iter().map(|entry| entry.disk).collect())
}

/// The same with the lines at which the disks begin.
pub(super) fn entries(text: &str) -> Result<Vec<DiskEntry>, FigureError> {
    let line_at = |offset: usize| text.bytes().take(offset).filter(|it| *it == b'\n').count() + 1;
    let document: Document = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_at(span.start));
        FigureError::new(line, "TOML", error.message())
    })?;
    let mut drafts = Vec::new();
    for disk in document.disk {
        let mut draft = DraftDisk::new(line_at(disk.span().start));
        for (key, value) in disk.get_ref() {
            let line = line_at(value.span().start);
            draft.see(line, key)?;
            match (key.as_str(), value.get_ref()) {
                ("mountpoints", Value::Array(paths)) => {
                    for path in paths {
                        draft.add_mountpoint(line, path.as_str().unwrap_or_default())?;
                    }
                }
                ("duplex", Value::Boolean(duplex)) => draft.disk.duplex = Some(*duplex),
                ("mountpoints", _) => {
                    return Err(FigureError::new(line, key, "not a list of paths"));
                }
                ("duplex", _) => return Err(FigureError::new(line, key, "not true or false")),
                (key, Value::Integer(value)) => draft.set(line, key, i128::from(*value))?,
                (key, _) if FIGURES.iter().all(|figure| figure.key != key) => {
                    draft.set(line, key, 0)?;
                }
                (key, _) => return Err(FigureError::new(line, key, "not a whole number")),
            }
        }
        drafts.push(draft);
    }
    finish(drafts)
}

/// The figures as an `io-properties.toml`.
pub fn to_toml(disks: &[DiskProperties]) -> String {
    let mut text =
        String::from("# What the disks can do: requests and bytes a second, lengths in bytes.\n");
    for disk in disks {
        let paths = disk.mountpoints.iter().map(|path| Value::String(path.clone()));
        let paths = Value::Array(paths.collect());
        text.push_str(&format!("\n[[disk]]\nmountpoints = {paths}\n"));
        for figure in &FIGURES {
            if let Some(value) = (figure.get)(disk) {
                text.push_str(&format!("{} = {value}\n", figure.key));
            }
        }
        if let Some(duplex) = disk.duplex {
            text.push_str(&format!("duplex = {duplex}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FINE: &str = "\
[[disk]]
mountpoints = [\"/a\"]
read_iops = 1000
read_bandwidth = 1000000
write_iops = 500
write_bandwidth = 500000
";

    #[test]
    fn a_wrong_file_is_refused_with_line_and_key() {
        assert_eq!(from_toml(FINE).expect("figures")[0].write_iops, 500);
        for (text, line, key, part) in [
            (FINE.replace("= 1000\n", "= 0\n"), 3, "read_iops", "0 is not from 10"),
            (FINE.replace("= 1000\n", "= -5\n"), 3, "read_iops", "-5"),
            (FINE.replace("= 500\n", "= 9999999999999\n"), 5, "write_iops", "100000000"),
            (FINE.replace("= 500\n", "= 1.5\n"), 5, "write_iops", "whole number"),
            (FINE.replace("= 500\n", "= \"x\"\n"), 5, "write_iops", "whole number"),
            (FINE.replace("write_iops = 500\n", ""), 1, "write_iops", "missing"),
            (FINE.replace("write_iops", "write_ipos"), 5, "write_ipos", "unknown"),
            (FINE.replace("500\n", "500\nspeed = \"x\"\n"), 6, "speed", "unknown"),
            (FINE.replace("[\"/a\"]", "[]"), 1, "mountpoints", "none"),
            (FINE.replace("[\"/a\"]", "\"/a\""), 2, "mountpoints", "list"),
            (FINE.replace("\"/a\"", "\"a\""), 2, "mountpoints", "absolute"),
            (FINE.replace("\"/a\"", "\"/a\", \"/a\""), 1, "mountpoints", "twice"),
            (format!("{FINE}{FINE}"), 7, "mountpoints", "/a is there twice"),
            (format!("{FINE}duplex = 1\n"), 7, "duplex", "true or false"),
            (String::new(), 1, "disk", "no disk"),
            ("x = 1\n".to_owned(), 1, "TOML", "x"),
            ("\n\n[[disk]\n".to_owned(), 3, "TOML", ""),
        ] {
            let error = from_toml(&text).expect_err(&text);
            assert_eq!((error.line, error.key.as_str()), (line, key), "{error}\n{text}");
            assert!(error.message.contains(part), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            numbers in prop::collection::vec(0..=u64::MAX, FIGURES.len()),
            given in prop::collection::vec(any::<bool>(), FIGURES.len()),
            duplex in any::<Option<bool>>(),
        ) {
            let mut disk = DiskProperties {
                mountpoints: vec!["/mnt/a \"b\"".to_owned(), "/c".to_owned()],
                duplex,
                ..DiskProperties::default()
            };
            for (figure, (number, given)) in FIGURES.iter().zip(numbers.iter().zip(given)) {
                let (least, most) = (figure.range.start(), figure.range.end());
                if figure.is_needed || given {
                    (figure.set)(&mut disk, least + number % (most - least + 1));
                }
            }
            let disks = vec![disk];
            prop_assert_eq!(from_toml(&to_toml(&disks)), Ok(disks));
        }
    }
}
