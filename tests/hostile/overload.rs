//! More than can be answered costs those who are answered little.
