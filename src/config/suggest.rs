//! "Did you mean": the known word that a mistyped one is closest to.

/// The word closest to `typed`, if one is close enough to be meant. Case does not count; of two as
/// close the first one wins.
pub fn nearest<'w>(typed: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let folded = typed.to_lowercase();
    // Swapped neighbors count as one slip, since they are the commonest of all.
    let distance = |word: &str| strsim::osa_distance(&folded, &word.to_lowercase());
    let (slips, word) = known.into_iter().map(|word| (distance(word), word)).min_by_key(|&(slips, _)| slips)?;
    (slips <= allowed(word)).then_some(word)
}

/// How many slips a word of this length forgives: two in a short word make another word.
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

    /// Checks what is suggested for `typed` among a few keys of a pool.
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
