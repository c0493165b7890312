//! How much a host may tell of checks of its own: all of it goes in one greeting, which must fit in one message.

/// Checks.
pub const CHECKS_MAX: usize = 100;
/// Bytes of one of them, as JSON.
pub const CHECK_BYTES_MAX: usize = 8 << 10;
/// Sentences about what is wrong with others.
pub const PROBLEMS_MAX: usize = 20;
/// Characters of such a sentence.
pub const PROBLEM_CHARS_MAX: usize = 500;

// A block is as large as a message may become.
const _: () = assert!(
    CHECKS_MAX * CHECK_BYTES_MAX + PROBLEMS_MAX * PROBLEM_CHARS_MAX * 4 < crate::block::BLOCK_BYTES_MAX - (64 << 10)
);
