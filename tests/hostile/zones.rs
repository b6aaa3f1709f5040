//! What other servers may do to an authority: NOTIFY, costly zones, many names.
