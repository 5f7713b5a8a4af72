//! Messages of memcached's binary protocol, as far as the tests need them.

use std::io;

use crate::client::Client;

/// The length of a header in bytes.
pub const HEADER_BYTES: usize = 24;

/// The opcode that is answered when all before it is.
pub const NOOP: u8 = 0x0A;

/// A request whose lengths are true, with an opaque that its opcode decides.
pub fn request(opcode: u8, cas: u64, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let body_bytes = (extras.len() + key.len() + value.len()) as u32;
    let mut bytes = vec![0x80, opcode];
    bytes.extend((key.len() as u16).to_be_bytes());
    bytes.extend([extras.len() as u8, 0, 0, 0]);
    bytes.extend(body_bytes.to_be_bytes());
    bytes.extend([opcode, 1, 2, 3]);
    bytes.extend(cas.to_be_bytes());
    [&bytes, extras, key, value].concat()
}

/// The next reply, whole.
pub fn reply(client: &mut Client) -> io::Result<Vec<u8>> {
    let mut bytes = client.bytes(HEADER_BYTES)?;
    if bytes[0] != 0x81 {
        return Err(io::Error::other(format!("no reply begins with {bytes:?}")));
    }
    let body_bytes = u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    bytes.extend(client.bytes(body_bytes as usize)?);
    Ok(bytes)
}

/// The CAS id of a request or reply.
///
/// # Panics
/// If there is no whole header.
pub fn cas(message: &[u8]) -> u64 {
    u64::from_be_bytes(message[16..24].try_into().expect("eight bytes"))
}
