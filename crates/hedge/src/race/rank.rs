//! The rank of a reply, in the words of the caller's protocol.

/// The rank of a reply. A greater rank is better and replaces a kept reply.
///
/// ```
/// #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
/// enum Answer {
///     ServerError,
///     NotFound,
///     Found,
/// }
///
/// impl hedge::race::ReplyRank for Answer {
///     fn is_failure(self) -> bool {
///         self == Self::ServerError
///     }
/// }
/// ```
pub trait ReplyRank: Copy + Ord {
    /// Returns true if the reply speaks for its own attempt only. Any other reply speaks for its backend, so
    /// that other attempts to the same backend are not waited for.
    fn is_failure(self) -> bool;

    /// Returns true if no better reply replaces this one. Only
    /// [`Race::on_validated`](super::Race::on_validated) does.
    fn is_provisional(self) -> bool {
        false
    }
}

/// The ranks of a protocol in which a reply either succeeds or fails.
impl ReplyRank for bool {
    fn is_failure(self) -> bool {
        !self
    }
}
