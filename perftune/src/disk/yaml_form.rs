//! Figures that Seastar's iotune has measured, from its YAML.
//!
//! It is read line by line, as far as such files go: a section `disks`, a list of mappings, and in
//! these a list of mount points. What is more than that is an error with its line.

use super::{DiskEntry, DraftDisk, FigureError, finish};

/// What Seastar calls figures that have another name here, or another unit.
const RATE_FACTOR: &str = "rate_factor";
/// Units of sizes: powers of 1,024, as there.
const UNITS: [(char, u32); 4] = [('k', 10), ('m', 20), ('g', 30), ('t', 40)];

/// Reads an `io_properties.yaml`.
///
/// # Errors
/// The line, the key, and what is wrong with it.
pub(super) fn entries(text: &str) -> Result<Vec<DiskEntry>, FigureError> {
    let mut drafts: Vec<DraftDisk> = Vec::new();
    let (mut is_in_disks, mut is_in_list) = (false, false);
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let content = without_comment(line);
        if content.trim().is_empty() || content.trim() == "---" {
            continue;
        }
        if !content.starts_with([' ', '-']) {
            if content.trim_end() != "disks:" {
                let section = content.trim().trim_end_matches(':');
                return Err(FigureError::new(number, section, "only the section `disks` is known"));
            }
            if is_in_disks {
                return Err(FigureError::new(number, "disks", "it is given twice"));
            }
            is_in_disks = true;
            continue;
        }
        if !is_in_disks {
            return Err(FigureError::new(number, "disks", "this stands outside of the section"));
        }
        let item = content.trim().strip_prefix('-').map(str::trim);
        match (item, drafts.last_mut()) {
            // An item of the inner list is a path, one of the outer list begins with a key.
            (Some(path), Some(draft)) if is_in_list && !path.contains(": ") => {
                draft.add_mountpoint(number, unquoted(path))?;
            }
            (Some(pair), _) => {
                let mut draft = DraftDisk::new(number);
                is_in_list = read_pair(&mut draft, number, pair)?;
                drafts.push(draft);
            }
            (None, Some(draft)) => is_in_list = read_pair(draft, number, content.trim())?,
            (None, None) => {
                return Err(FigureError::new(number, "disks", "a list of disks begins with `-`"));
            }
        }
    }
    finish(drafts)
}

/// Reads `key: value`; returns whether a list of mount points follows.
fn read_pair(draft: &mut DraftDisk, line: usize, pair: &str) -> Result<bool, FigureError> {
    let Some((key, value)) = pair.split_once(':') else {
        return Err(FigureError::new(line, pair, "not a key and its value"));
    };
    let (key, value) = (key.trim(), unquoted(value.trim()));
    draft.see(line, key)?;
    match key {
        "mountpoints" if value.is_empty() => return Ok(true),
        "mountpoints" => {
            let inner = value.strip_prefix('[').and_then(|value| value.strip_suffix(']'));
            let Some(inner) = inner else {
                return Err(FigureError::new(line, key, "not a list of paths"));
            };
            for path in inner.split(',') {
                draft.add_mountpoint(line, unquoted(path.trim()))?;
            }
        }
        "mountpoint" => draft.add_mountpoint(line, value)?,
        "duplex" => {
            let duplex = value.parse();
            let wrong = |_| FigureError::new(line, key, "not true or false");
            draft.disk.duplex = Some(duplex.map_err(wrong)?);
        }
        RATE_FACTOR => {
            let thousandths = thousandths(value)
                .ok_or_else(|| FigureError::new(line, key, "not a number such as 0.95"))?;
            draft.set(line, "mixed_thousandths", i128::from(thousandths))?;
        }
        key => {
            let wrong = || FigureError::new(line, key, format!("`{value}` is no number"));
            draft.set(line, key, number(value).ok_or_else(wrong)?)?;
        }
    }
    Ok(false)
}

/// The line up to a `#` that begins a comment.
fn without_comment(line: &str) -> &str {
    let is_comment = |at: &usize| *at == 0 || line[..*at].ends_with([' ', '\t']);
    line.match_indices('#').map(|(at, _)| at).find(is_comment).map_or(line, |at| &line[..at])
}

fn unquoted(text: &str) -> &str {
    let inner = |quote| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

/// A whole number, perhaps with a unit.
fn number(text: &str) -> Option<i128> {
    let lower = text.to_ascii_lowercase();
    let unit = UNITS.iter().find(|(letter, _)| lower.ends_with(*letter));
    let digits = unit.map_or(lower.as_str(), |_| &lower[..lower.len() - 1]);
    let value: i64 = digits.parse().ok()?;
    Some(i128::from(value) << unit.map_or(0, |(_, shift)| *shift))
}

/// A decimal number in thousandths, of which it may have so many digits.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    if !is_number(whole) || !is_number(part) || whole.len() > 9 {
        return None;
    }
    let digits: String = part.chars().chain("000".chars()).take(3).collect();
    Some(whole.parse::<u64>().ok()? * 1000 + digits.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::super::DiskProperties;
    use super::*;

    #[test]
    fn files_of_seastar_are_taken_over() {
        let text = "\
# measured
disks:
  - mountpoint: /var/lib/app   # here
    read_iops: 95000
    read_bandwidth: 545M
    write_iops: 85k
    write_bandwidth: \"510M\"
    write_saturation_length: 64k
    rate_factor: 0.95
    duplex: false
  - mountpoints:
      - /srv/one
      - '/srv/two'
    read_iops: 100
    read_bandwidth: 1G
    write_iops: 100
    write_bandwidth: 1G
";
        let disks = entries(text).expect("figures");
        let first = DiskProperties {
            mountpoints: vec!["/var/lib/app".to_owned()],
            read_iops: 95_000,
            read_bandwidth: 545 << 20,
            write_iops: 85 << 10,
            write_bandwidth: 510 << 20,
            write_saturation_length: Some(64 << 10),
            mixed_thousandths: Some(950),
            duplex: Some(false),
            ..DiskProperties::default()
        };
        assert_eq!((disks[0].line, &disks[0].disk), (3, &first));
        assert_eq!((disks[1].line, disks[1].disk.mountpoints.len()), (11, 2));
        assert_eq!(disks[1].disk.mountpoints, ["/srv/one", "/srv/two"]);
        let flow = text.replace("mountpoint: /var/lib/app ", "mountpoints: [/a, \"/b\"]");
        assert_eq!(entries(&flow).expect("figures")[0].disk.mountpoints, ["/a", "/b"]);
        let unindented = "disks:\n- mountpoint: /a\n  read_iops: 10\n  read_bandwidth: 1M\n  \
                          write_iops: 10\n  write_bandwidth: 1M\n";
        assert_eq!(entries(unindented).expect("figures").len(), 1);
    }

    #[test]
    fn a_wrong_file_is_refused_with_line_and_key() {
        let fine = "disks:\n  - mountpoint: /a\n    read_iops: 10\n    read_bandwidth: 1M\n    \
                    write_iops: 10\n    write_bandwidth: 1M\n";
        entries(fine).expect("figures");
        for (text, line, key) in [
            (fine.replace("iops: 10\n    read", "iops: 0\n    read"), 3, "read_iops"),
            (fine.replace("disks", "devices"), 1, "devices"),
            (fine.replace("write_iops", "iops"), 5, "iops"),
            (fine.replace("write_iops: 10", "write_iops: ten"), 5, "write_iops"),
            (fine.replace("write_iops: 10", "read_iops: 10"), 5, "read_iops"),
            (fine.replace("    write_iops: 10\n", ""), 2, "write_iops"),
            (fine.replace("1M\n    write", "99999999T\n    write"), 4, "read_bandwidth"),
            (fine.replace("mountpoint: /a", "mountpoint: a"), 2, "mountpoints"),
            (fine.replace("  - mountpoint: /a\n", "  mountpoint: /a\n"), 2, "disks"),
            (fine.replace("disks:\n", ""), 1, "disks"),
            (format!("{fine}    rate_factor: x\n"), 7, "rate_factor"),
            (format!("{fine}    rate_factor: 0\n"), 7, "mixed_thousandths"),
            (format!("{fine}    duplex: 1\n"), 7, "duplex"),
            (format!("{fine}    nonsense\n"), 7, "nonsense"),
            ("disks:\n".to_owned(), 1, "disk"),
        ] {
            let error = entries(&text).expect_err(&text);
            assert_eq!((error.line, error.key.as_str()), (line, key), "{error}\n{text}");
        }
    }
}
