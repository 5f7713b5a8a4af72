//! Tokens that keep a request from being done twice.

use super::{Opcode, u64_at};

/// Bytes of a token before the body of its request.
pub const TOKEN_BYTES: usize = 24;

/// Names a request, however often it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyToken {
    /// When the request was first sent, by the client's clock, in microseconds since 1970.
    pub time_microseconds: u64,
    /// Chosen by chance for each request.
    pub nonce: [u8; 16],
}

/// A token as it came, and what makes its request known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedToken {
    /// The token.
    pub token: IdempotencyToken,
    /// A checksum of opcode and body.
    pub fingerprint: u32,
}

impl IdempotencyToken {
    /// Appends the token.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.time_microseconds.to_le_bytes());
        out.extend_from_slice(&self.nonce);
    }
}

impl ReceivedToken {
    /// The token before a body, and the body.
    pub(super) fn split(opcode: Opcode, bytes: &[u8]) -> Result<(Self, &[u8]), &'static str> {
        if !takes_token(opcode) {
            return Err("requests with this opcode take no idempotency token");
        }
        let Some((token, body)) = bytes.split_first_chunk::<TOKEN_BYTES>() else {
            return Err("the body is shorter than the idempotency token before it");
        };
        let (_, nonce) = token.split_first_chunk::<8>().expect("it is longer");
        let nonce = nonce.try_into().expect("16 bytes are left");
        let token = IdempotencyToken { time_microseconds: u64_at(token, 0), nonce };
        let fingerprint = crc32c::crc32c_append(crc32c::crc32c(&[opcode as u8]), body);
        Ok((Self { token, fingerprint }, body))
    }
}

/// Whether it is of use to say of such a request that it is sent again.
fn takes_token(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::Put
            | Opcode::Delete
            | Opcode::Increment
            | Opcode::Touch
            | Opcode::GetAndTouch
            | Opcode::MutateRecord
            | Opcode::DeleteItems
    )
}
