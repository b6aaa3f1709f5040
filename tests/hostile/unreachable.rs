//! ICMP moves a race on; it does not judge a backend.
