//! What one client, or all of them, may use by TCP.
