//! Pages, and what is asked for one.

use super::*;

#[test]
fn a_page_is_read_as_it_was_written() {
    let item = |record, item, value: Option<&'static [u8]>| NativePageItem {
        record,
        item,
        version: 1 << 40,
        client_flags: 2,
        expiry: 3,
        value_len: 5,
        value,
    };
    let items = [
        item(None, b"a", Some(b"value")),
        item(Some(b"record"), b"", None),
        NativePageItem { value_len: 0, ..item(None, &[0xFF; 1024], Some(b"")) },
    ];
    for next in [None, Some(&b"token"[..])] {
        let mut out = Vec::new();
        let is_damaged = next.is_some();
        reply::put_page(&mut out, head(2), items.iter().copied(), 2000, (next, is_damaged));
        let page = NativePage { items: items.to_vec(), next, is_damaged };
        assert_eq!(NativePage::decode(read(&out).body), Ok(page));
    }
    let mut out = Vec::new();
    reply::put_page(&mut out, head(1), [].into_iter(), 0, (None, false));
    assert_eq!(NativePage::decode(read(&out).body), Ok(NativePage::default()));
}

/// A page whose vector refers to one table so many times.
fn page_of_one_table(count: u32) -> Vec<u8> {
    let mut page = b"\x10\0\0\0LRPG\x08\0\x08\0\x04\0\0\0".to_vec();
    // The root's table, at 16: its layout is 8 bytes before it; its one field is the vector.
    page.extend_from_slice(&8i32.to_le_bytes());
    page.extend_from_slice(&4u32.to_le_bytes());
    page.extend_from_slice(&count.to_le_bytes());
    for element in 0..count {
        page.extend_from_slice(&(4 * (count - element) + 4).to_le_bytes());
    }
    // The layout of a table without fields, and the table.
    page.extend_from_slice(b"\x04\0\x04\0\x04\0\0\0");
    page
}

#[test]
fn a_page_that_refers_to_one_table_again_and_again_is_refused() {
    let few = page_of_one_table(2);
    assert_eq!(NativePage::decode(&few).map(|page| page.items.len()), Ok(2));
    let many = page_of_one_table(1000);
    let many = NativePage::decode(&many);
    assert!(matches!(many, Err(StructureError::Malformed(_))), "{many:?}");
}

/// The reason for which a body is refused.
fn reason(request: &NativeRequest<'_>, opcode: Opcode, change: impl Fn(&mut Vec<u8>)) -> String {
    let mut bytes = bytes_of(1, false, request);
    bytes[2] = opcode as u8;
    let mut body = bytes.split_off(HEADER_BYTES);
    change(&mut body);
    bytes[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&body);
    match NativeParser::default().next(&LIMITS, &bytes).parsed {
        NativeParsed::Refused(refusal) => {
            assert_eq!((refusal.status, refusal.is_last), (NativeStatus::Malformed, false));
            refusal.reason.to_owned()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_for_a_page_that_makes_no_sense_is_refused_with_its_reason() {
    let good = get_items(ItemRange::Prefix(b"p"), b"token");
    let scan = NativeRequest::Scan(SCAN);
    let same = |_: &mut Vec<u8>| ();
    assert!(reason(&good, Opcode::Scan, same).contains("another kind"));
    assert!(reason(&scan, Opcode::GetItems, same).contains("another kind"));
    assert!(reason(&good, Opcode::GetItems, |body| body.truncate(40)).contains("FlatBuffer"));
    assert!(reason(&good, Opcode::GetItems, Vec::clear).contains("another kind"));
    let written = |request: GetItems<'static>| {
        reason(&NativeRequest::GetItems(request), Opcode::GetItems, same)
    };
    let NativeRequest::GetItems(get) = good else { panic!("it is one") };
    assert!(written(GetItems { record: b"", ..get }).contains("record id"));
    assert!(written(GetItems { record: &[1; 1025], ..get }).contains("record id"));
    let range = ItemRange::Between { from: Some(&[1; 1025]), to: None };
    assert!(written(GetItems { range, ..get }).contains("1,024"));
    assert!(written(GetItems { token: &[1; 4097], ..get }).contains("4,096"));
    let raw =
        |fields: Fields| reason(&good, Opcode::GetItems, |body| *body = raw_get_items(fields));
    let sound = Fields { prefix: true, from: false, order: 1, keys_only: 1 };
    assert!(NativeRequest::read(Opcode::GetItems, &raw_get_items(sound)).is_ok());
    assert!(raw(Fields { order: 2, ..sound }).contains("order"));
    assert!(raw(Fields { keys_only: 2, ..sound }).contains("keys_only"));
    assert!(raw(Fields { from: true, ..sound }).contains("not both"));
}

/// Fields of a request for a record's items, as no client writes them.
#[derive(Clone, Copy)]
struct Fields {
    prefix: bool,
    from: bool,
    order: u8,
    keys_only: u8,
}

fn raw_get_items(fields: Fields) -> Vec<u8> {
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let bytes = builder.create_vector(b"r").as_union_value();
    let start = builder.start_table();
    builder.push_slot_always(structured::slot(1), bytes);
    if fields.prefix {
        builder.push_slot_always(structured::slot(2), bytes);
    }
    if fields.from {
        builder.push_slot_always(structured::slot(3), bytes);
    }
    builder.push_slot(structured::slot(5), fields.order, 0);
    builder.push_slot(structured::slot(9), fields.keys_only, 0);
    let root = builder.end_table(start);
    builder.finish(root, Some("LRGI"));
    builder.finished_data().to_vec()
}
