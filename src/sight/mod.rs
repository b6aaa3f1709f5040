//! What an operator sees at a glance.
//!
//! [`live`] is the shape of the JSON that the page, `hedgerow top` and `hedgerow ctl` read. [`slow`] keeps races that were slow or
//! failed, and says why; [`names`] counts the names asked for most; [`explain`] is what is told of one
//! question that an operator asks. Nothing here touches a clock or a socket: time comes as an
//! argument.

pub mod explain;
pub mod live;
pub mod names;
pub mod slow;
