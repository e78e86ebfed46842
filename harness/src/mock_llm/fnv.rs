//! FNV-1a, 64 bits: the same on every machine and in every release, which the standard library's hasher does not
//! promise.

/// The hash of nothing, with which a hash begins.
pub(super) const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

/// The hash of what `hash` stands for and these bytes after it.
pub(super) fn extend(hash: u64, bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The hash of these bytes.
pub(super) fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    extend(EMPTY, bytes)
}
