//! How a request ended. The high half of the byte says what the caller does next.

/// What the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Go on.
    Done,
    /// There is no such item.
    Absent,
    /// The item is not as the request demanded: read it, and decide anew.
    ConditionFailed,
    /// Change the request: it fails again as it is.
    FixRequest,
    /// Ask this node again, later.
    RetryHere,
    /// Ask another node.
    RetryElsewhere,
    /// What is stored cannot be read: restore it, or store it anew.
    Damaged,
    /// Report it.
    Internal,
}

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $group:ident, $text:literal;)*) => {
        /// How a request ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum NativeStatus {
            $($(#[$doc])* $name = $code,)*
        }

        impl NativeStatus {
            /// Every status.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The status of this byte.
            pub fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// What the caller does next.
            pub fn group(self) -> Group {
                match self {
                    $(Self::$name => Group::$group,)*
                }
            }

            /// What it means, for people.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

statuses! {
    /// Done.
    Ok = 0x00, Done, "done";
    /// The value is large: it is read in chunks.
    Large = 0x01, Done, "the value is large: it is read in chunks";
    /// There is no such item.
    Absent = 0x10, Absent, "there is no such item";
    /// There is an item where there was to be none.
    Exists = 0x20, ConditionFailed, "there is an item already";
    /// The item has another version.
    VersionDiffers = 0x21, ConditionFailed, "the item has another version";
    /// The value is not a decimal number of at most 64 bits.
    NotANumber = 0x22, ConditionFailed, "the value is not a decimal number of at most 64 bits";
    /// The item has another value.
    ValueDiffers = 0x23, ConditionFailed, "the item has another value";
    /// The item has not, or no longer, the value that the upload brought.
    Changed = 0x24, ConditionFailed, "the value was replaced meanwhile: begin again";
    /// A chunk of the upload has not come.
    MissingChunk = 0x25, ConditionFailed, "a chunk of the upload has not come";
    /// The body is not that of the opcode.
    Malformed = 0x30, FixRequest, "the body is not that of the opcode";
    /// There is no such opcode.
    UnknownOpcode = 0x31, FixRequest, "there is no such opcode";
    /// A flag that this node would have to understand.
    UnknownFlag = 0x32, FixRequest, "a flag that must be understood is not known here";
    /// The node speaks no version that the client does.
    UnsupportedVersion = 0x33, FixRequest, "the node does not speak this version of the protocol";
    /// The checksum is not that of the bytes.
    BadChecksum = 0x34, FixRequest, "the checksum is not that of the bytes";
    /// The value, or the body, is longer than the limit.
    TooLarge = 0x35, FixRequest, "the value is longer than --max-item-size allows";
    /// There is no such namespace.
    UnknownNamespace = 0x36, FixRequest, "there is no such namespace";
    /// The page's token is not one that this request may go on with.
    BadToken = 0x37, FixRequest, "the token is not one that this request may go on with";
    /// There is a namespace of this name.
    NamespaceExists = 0x38, FixRequest, "there is a namespace of this name already";
    /// There are as many namespaces as there may be.
    TooManyNamespaces = 0x39, FixRequest, "there are as many namespaces as there may be";
    /// The namespace has all the space that it may have.
    OverQuota = 0x3A, FixRequest, "the namespace has used up its quota: delete some, or raise it";
    /// The token that was to keep the request from being done twice cannot do so.
    TokenRefused = 0x3B, FixRequest, "the idempotency token cannot be taken";
    /// The record has as much as a record of its namespace may have.
    RecordFull = 0x3C, FixRequest, "the record has all that its namespace lets one have";
    /// The item has no such upload under way.
    NoUpload = 0x3D, FixRequest, "there is no such upload: it was committed, aborted or is old";
    /// There is no such lease any more.
    LeaseEnded = 0x3E, FixRequest, "the lease has ended: begin another one, and read anew";
    /// The value is large: it cannot be changed in part.
    IsLarge = 0x3F, FixRequest, "the value is large: it cannot be changed in part";
    /// The node has too much to do.
    Busy = 0x40, RetryHere, "the node has too much to do";
    /// There is no room for the value.
    Full = 0x41, RetryHere, "the disk is full";
    /// The deadline was past before the work had begun.
    DeadlinePassed = 0x42, RetryHere, "the deadline was past before the work had begun";
    /// The shard takes no more writes.
    Stopped = 0x50, RetryElsewhere, "the shard takes no more writes";
    /// The stored bytes cannot be read back.
    Damaged = 0x60, Damaged, "the stored bytes of this key are damaged";
    /// The device would not give the bytes.
    ReadFailed = 0x61, Damaged, "the device would not give the bytes";
    /// A fault of the node's.
    Internal = 0x70, Internal, "a fault of the node";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_half_of_a_status_is_its_group() {
        for &status in NativeStatus::ALL {
            let code = status as u8;
            assert_eq!(NativeStatus::from_code(code), Some(status));
            let first = NativeStatus::ALL.iter().find(|other| **other as u8 >> 4 == code >> 4);
            assert_eq!(first.map(|first| first.group()), Some(status.group()), "{status:?}");
        }
        assert_eq!((0..=255).filter_map(NativeStatus::from_code).count(), NativeStatus::ALL.len());
    }
}
