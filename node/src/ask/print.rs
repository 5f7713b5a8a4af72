//! Answers for people, and as JSON for programs.

use std::io::{self, Write};

use larder_client::{HelloReply, Item, ListedItem, Stored};
use serde_json::{Value, json};

use super::NodeArgs;

/// Writes answers to standard output.
pub(super) struct Printer {
    json: bool,
}

impl Printer {
    pub(super) fn new(args: &NodeArgs) -> Self {
        Self { json: args.json }
    }

    /// Whether answers are JSON.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// What is known of an item, as JSON, with its value, which is in hexadecimal if it is no
    /// UTF-8; nothing otherwise.
    pub(super) fn item(&self, item: Option<&Item>) -> io::Result<()> {
        if self.json {
            writeln!(io::stdout(), "{}", item.map_or(Value::Null, describe))?;
        }
        Ok(())
    }

    pub(super) fn stored(&self, stored: Stored) -> io::Result<()> {
        let (version, reason) = match stored {
            Stored::Yes(version) => (Some(version), None),
            Stored::Exists => (None, Some("there is an item already")),
            Stored::Absent => (None, Some("there is no such item")),
            Stored::VersionDiffers => (None, Some("the item has another version")),
            Stored::ValueDiffers => (None, Some("the item has another value")),
        };
        if self.json {
            let stored = json!({ "stored": version.is_some(), "version": version });
            return writeln!(io::stdout(), "{stored}");
        }
        reason.map_or(Ok(()), |reason| writeln!(io::stderr(), "larder: not stored: {reason}"))
    }

    pub(super) fn deleted(&self, is_deleted: bool) -> io::Result<()> {
        if self.json {
            return writeln!(io::stdout(), "{}", json!({ "deleted": is_deleted }));
        }
        Ok(())
    }

    pub(super) fn number(&self, number: Option<u64>) -> io::Result<()> {
        match number {
            _ if self.json => writeln!(io::stdout(), "{}", json!({ "number": number })),
            Some(number) => writeln!(io::stdout(), "{number}"),
            None => Ok(()),
        }
    }

    pub(super) fn hello(&self, hello: &HelloReply) -> io::Result<()> {
        let HelloReply { version, software, shards, cores, core, value_bytes_max, .. } = hello;
        if self.json {
            let hello = json!({
                "software": software,
                "protocol": version,
                "shards": shards,
                "cores": cores,
                "core": core,
                "value_bytes_max": value_bytes_max,
            });
            return writeln!(io::stdout(), "{hello}");
        }
        writeln!(
            io::stdout(),
            "{software}, protocol {version}: {shards} shards on {cores} cores, values of up to \
             {value_bytes_max} bytes"
        )
    }
}

fn describe(item: &Item) -> Value {
    let mut shown = json!({
        "version": item.version,
        "client_flags": item.client_flags,
        "expiry": item.expiry,
        "length": item.value_len,
    });
    set_bytes(&mut shown, "value", &item.value);
    shown
}

/// Adds a field with these bytes, as text or, under a name that says so, in hexadecimal.
fn set_bytes(shown: &mut Value, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => shown[name] = json!(text),
        Err(_) => {
            let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
            shown[format!("{name}_hex")] = json!(digits.collect::<String>());
        }
    }
}

/// Writes an item of a page as a line: the record if it is shown, the key, and the value unless it
/// was left out, with tabs between them; or as JSON with all that is known.
pub(super) fn listed(out: &mut impl Write, item: &ListedItem, json: bool) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", describe_listed(item));
    }
    let parts = [item.record.as_ref(), Some(&item.item), item.value.as_ref()];
    for (number, part) in parts.into_iter().flatten().enumerate() {
        if number > 0 {
            out.write_all(b"\t")?;
        }
        out.write_all(part)?;
    }
    out.write_all(b"\n")
}

fn describe_listed(item: &ListedItem) -> Value {
    let mut shown = json!({
        "version": item.version,
        "client_flags": item.client_flags,
        "expiry": item.expiry,
        "length": item.value_len,
    });
    let parts = [("record", item.record.as_ref()), ("value", item.value.as_ref())];
    for (name, bytes) in parts.into_iter().chain([("item", Some(&item.item))]) {
        if let Some(bytes) = bytes {
            set_bytes(&mut shown, name, bytes);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_as_text_or_in_hexadecimal() {
        let item = |value: &[u8]| Item {
            version: 3,
            client_flags: 4,
            expiry: 5,
            value_len: value.len() as u32,
            value: value.to_vec(),
        };
        let text = describe(&item("gr\u{fc}n".as_bytes()));
        assert_eq!((&text["value"], &text["length"]), (&json!("gr\u{fc}n"), &json!(5)));
        let bytes = describe(&item(&[0xFF, 1]));
        assert_eq!((&bytes["value_hex"], bytes.get("value")), (&json!("ff01"), None));
        assert_eq!((&bytes["version"], &bytes["expiry"]), (&json!(3), &json!(5)));
    }
}
