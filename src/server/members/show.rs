//! What there is to see of members, sources and orders.
