//! What one client may have waiting, and what responses one network may be sent.
