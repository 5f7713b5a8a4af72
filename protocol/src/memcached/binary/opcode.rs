//! Opcodes, and which lengths belong to each.

/// What an opcode asks for; the quiet ones ask for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    GetKey,
    Set,
    Add,
    Replace,
    Delete,
    Increment,
    Decrement,
    Quit,
    Flush,
    Noop,
    Version,
    Append,
    Prepend,
    Statistics,
    Verbosity,
    Touch,
    GetAndTouch,
    GetKeyAndTouch,
}

/// Whether a part of the body is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Never,
    Perhaps,
    Always,
}

impl Presence {
    fn allows(self, bytes: usize) -> bool {
        match self {
            Self::Never => bytes == 0,
            Self::Perhaps => true,
            Self::Always => bytes > 0,
        }
    }
}

/// The lengths of a body's parts, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    pub(super) extras: usize,
    pub(super) key: usize,
    pub(super) value: usize,
}

impl Verb {
    /// What `opcode` asks for, and whether quietly; `None` if it is not known.
    pub(super) fn from_opcode(opcode: u8) -> Option<(Self, bool)> {
        Some(match opcode {
            0x00 => (Self::Get, false),
            0x01 => (Self::Set, false),
            0x02 => (Self::Add, false),
            0x03 => (Self::Replace, false),
            0x04 => (Self::Delete, false),
            0x05 => (Self::Increment, false),
            0x06 => (Self::Decrement, false),
            0x07 => (Self::Quit, false),
            0x08 => (Self::Flush, false),
            0x09 => (Self::Get, true),
            0x0A => (Self::Noop, false),
            0x0B => (Self::Version, false),
            0x0C => (Self::GetKey, false),
            0x0D => (Self::GetKey, true),
            0x0E => (Self::Append, false),
            0x0F => (Self::Prepend, false),
            0x10 => (Self::Statistics, false),
            0x11 => (Self::Set, true),
            0x12 => (Self::Add, true),
            0x13 => (Self::Replace, true),
            0x14 => (Self::Delete, true),
            0x15 => (Self::Increment, true),
            0x16 => (Self::Decrement, true),
            0x17 => (Self::Quit, true),
            0x18 => (Self::Flush, true),
            0x19 => (Self::Append, true),
            0x1A => (Self::Prepend, true),
            0x1B => (Self::Verbosity, false),
            0x1C => (Self::Touch, false),
            0x1D => (Self::GetAndTouch, false),
            0x1E => (Self::GetAndTouch, true),
            0x23 => (Self::GetKeyAndTouch, false),
            0x24 => (Self::GetKeyAndTouch, true),
            _ => return None,
        })
    }

    /// Whether a body of these lengths is one of this verb.
    pub(super) fn allows(self, lengths: Lengths) -> bool {
        use Presence::{Always, Never, Perhaps};
        let Lengths { extras, key, value } = lengths;
        let (extras_fit, wants_key, wants_value) = match self {
            Self::Quit | Self::Noop | Self::Version => (extras == 0, Never, Never),
            Self::Flush => (extras == 0 || extras == 4, Never, Never),
            Self::Verbosity => (extras == 4, Never, Never),
            Self::Statistics => (extras == 0, Perhaps, Never),
            Self::Get | Self::GetKey | Self::Delete => (extras == 0, Always, Never),
            Self::Touch | Self::GetAndTouch | Self::GetKeyAndTouch => (extras == 4, Always, Never),
            Self::Increment | Self::Decrement => (extras == 20, Always, Never),
            Self::Append | Self::Prepend => (extras == 0, Always, Perhaps),
            Self::Set | Self::Add | Self::Replace => (extras == 8, Always, Perhaps),
        };
        extras_fit && wants_key.allows(key) && wants_value.allows(value)
    }
}
