//! "Did you mean": the known word closest to a mistyped one.

/// The word closest to `typed`, if close enough. Ignores case; the first of equally close words wins.
pub fn nearest<'w>(typed: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let folded = typed.to_lowercase();
    // Swapped neighbors count as one slip, because they are the most common.
    let distance = |word: &str| strsim::osa_distance(&folded, &word.to_lowercase());
    let (slips, word) = known.into_iter().map(|word| (distance(word), word)).min_by_key(|&(slips, _)| slips)?;
    (slips <= allowed(word)).then_some(word)
}

/// The number of slips allowed: two in a short word make another word.
fn allowed(word: &str) -> usize {
    match word.chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        6..=8 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(typed: &str, expected: Option<&str>) {
        let known = ["dispatch", "fanout", "attempt_timeout", "timeout", "tries", "on"];
        assert_eq!(nearest(typed, known), expected, "{typed:?}");
    }

    #[test]
    fn slips_of_the_fingers_are_forgiven() {
        check("fan_out", Some("fanout"));
        check("fanuot", Some("fanout"));
        check("Timeout", Some("timeout"));
        check("attempt-timeout", Some("attempt_timeout"));
        check("tires", Some("tries"));
    }

    #[test]
    fn other_words_are_not() {
        check("cache", None);
        check("of", None);
        check("", None);
    }
}
