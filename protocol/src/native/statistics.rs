//! A node in figures: `schema/statistics.fbs`.

use flatbuffers::FlatBufferBuilder;

use super::structured::{Reader, StructureError, slot, write_table};

/// The schema's `file_identifier`.
const IDENTIFIER: &str = "LRST";

/// The least that a figure takes in a body, in bytes: the offset to its table, and the table's own
/// to its layout and its parts.
const FIGURE_BYTES_MIN: usize = 16;

/// The reply to a question for the node's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatisticsReply {
    /// Names and values.
    pub values: Vec<(String, String)>,
}

impl StatisticsReply {
    /// The body.
    pub fn encode(&self) -> Vec<u8> {
        let mut builder = FlatBufferBuilder::with_capacity(8192);
        let mut tables = Vec::with_capacity(self.values.len());
        for (name, value) in &self.values {
            let (name, value) = (builder.create_string(name), builder.create_string(value));
            tables.push(write_table(&mut builder, |builder| {
                builder.push_slot_always(slot(0), name);
                builder.push_slot_always(slot(1), value);
            }));
        }
        let values = builder.create_vector(&tables);
        let root = write_table(&mut builder, |builder| {
            builder.push_slot_always(slot(0), values);
        });
        builder.finish(root, Some(IDENTIFIER));
        builder.finished_data().to_vec()
    }

    /// Reads a body. Never panics, whatever the bytes are, and takes memory in proportion to them.
    ///
    /// # Errors
    /// If they are no such body.
    pub fn decode(body: &[u8]) -> Result<Self, StructureError> {
        Reader::read(body, IDENTIFIER, |reader, root| {
            let [values] = reader.fields(root)?;
            let values = reader.tables(values, FIGURE_BYTES_MIN, |reader, table| {
                let [name, value] = reader.fields(table)?;
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                Ok((text(reader.bytes(name)?), text(reader.bytes(value)?)))
            })?;
            Ok(Self { values })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_they_were_written_and_other_bytes_are_none() {
        let value = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let values = vec![value("cmd_get", "7"), value("version", "gr\u{fc}n"), value("", "")];
        for values in [values, Vec::new()] {
            let reply = StatisticsReply { values };
            let body = reply.encode();
            assert_eq!(StatisticsReply::decode(&body).as_ref(), Ok(&reply));
            for len in 0..body.len() {
                let cut = StatisticsReply::decode(&body[..len]);
                assert!(cut.is_err() || cut.as_ref() != Ok(&reply) || len + 4 > body.len());
            }
        }
        assert_eq!(StatisticsReply::decode(b"\x08\0\0\0LRHE"), Err(StructureError::Identifier));
    }
}
