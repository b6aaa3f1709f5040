//! What an operator sees at a glance.
//!
//! [`live`] is the shape of the JSON that the page, `hedgerow top` and `hedgerow ctl` read. Nothing here touches a clock or a socket:
//! time comes as an argument.

pub mod live;
