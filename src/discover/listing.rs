//! What a source says: whole lists, changes, that it still says the same, that it cannot be asked.

use std::collections::BTreeMap;

use super::entry::Entry;

/// One thing that a source lists: where it stands there, and the entry or what is wrong with it.
pub type Item = (String, Result<Entry, String>);

/// What a source has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News<T = Entry> {
    /// All that it lists now, each with its place.
    Listed(Vec<(String, Result<T, String>)>),
    /// What has changed since; `None` is listed no more.
    Changed(Vec<(String, Option<Result<T, String>>)>),
    /// It still says the same.
    Confirmed,
    /// It cannot be asked, and why.
    Failed(String),
}

/// All that one source lists, by the places of the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    entries: BTreeMap<String, Result<Entry, String>>,
    /// How many more there were than are kept.
    excess: usize,
}

impl Listing {
    /// Entries that are kept of one source: twice the members that a pool may have. What is beyond is counted.
    pub const MAX_ENTRIES: usize = 20_000;

    /// Takes the place of all that was listed. Says whether that changes anything.
    pub fn replace(&mut self, items: Vec<Item>) -> bool {
        let earlier = std::mem::take(self);
        items.into_iter().for_each(|(place, entry)| self.set(place, Some(entry)));
        *self != earlier
    }

    /// Takes changes. Says whether they change anything.
    pub fn change(&mut self, changes: Vec<(String, Option<Result<Entry, String>>)>) -> bool {
        let mut is_change = false;
        for (place, entry) in changes {
            is_change |= self.entries.get(&place) != entry.as_ref();
            self.set(place, entry);
        }
        is_change
    }

    fn set(&mut self, place: String, entry: Option<Result<Entry, String>>) {
        match entry {
            None => drop(self.entries.remove(&place)),
            Some(_) if self.entries.len() >= Self::MAX_ENTRIES && !self.entries.contains_key(&place) => {
                self.excess += 1;
            }
            Some(entry) => drop(self.entries.insert(place, entry)),
        }
    }

    /// Its entries, right or wrong, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Result<Entry, String>)> {
        self.entries.iter().map(|(place, entry)| (place.as_str(), entry))
    }

    /// Those that are right.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.iter().filter_map(|(place, entry)| Some((place, entry.as_ref().ok()?)))
    }

    /// How many more there were than are kept.
    pub fn excess(&self) -> usize {
        self.excess
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry at a port.
    fn entry(port: u16) -> Result<Entry, String> {
        Ok(Entry::at(([192, 0, 2, 1], port).into()))
    }

    #[test]
    fn lists_replace_and_changes_add_up() {
        let mut listing = Listing::default();
        let wrong = || Err("no JSON".to_owned());
        assert!(listing.replace(vec![("a".to_owned(), entry(1)), ("b".to_owned(), wrong())]));
        assert!(!listing.replace(vec![("b".to_owned(), wrong()), ("a".to_owned(), entry(1))]), "the same");
        assert!(listing.change(vec![("b".to_owned(), Some(entry(2))), ("c".to_owned(), None)]));
        assert!(!listing.change(vec![("b".to_owned(), Some(entry(2))), ("c".to_owned(), None)]));
        assert_eq!(listing.entries().map(|(_, entry)| entry.address.port()).collect::<Vec<_>>(), [1, 2]);
        assert!(listing.change(vec![("a".to_owned(), None)]));
        assert!(listing.replace(Vec::new()));
        assert_eq!(listing, Listing::default());
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let mut listing = Listing::default();
        let items = (0..Listing::MAX_ENTRIES + 5).map(|number| (format!("{number:06}"), entry(1)));
        listing.replace(items.collect());
        assert_eq!((listing.iter().count(), listing.excess()), (Listing::MAX_ENTRIES, 5));
        listing.change(vec![("000001".to_owned(), Some(entry(7)))]);
        assert_eq!(listing.iter().nth(1).expect("it was there").1, &entry(7));
    }
}
