//! Whole answers fetched by TCP are bounded, share connections, and are fair among clients.
