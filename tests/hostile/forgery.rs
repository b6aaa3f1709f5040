//! Who guesses IDs, names or fragments is noticed, and wins nothing.
