//! The reports of a source: whole lists, changes, confirmations, failures.

use std::collections::BTreeMap;

use super::entry::MemberEntry;

/// One listed item: its place in the source, and the entry or the reason why it is wrong.
pub type Item = (String, Result<MemberEntry, String>);

/// A report of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceNews<T = MemberEntry> {
    /// The complete list, each item with its place.
    Listed(Vec<(String, Result<T, String>)>),
    /// Changes since then; `None` is no longer listed.
    Changed(Vec<(String, Option<Result<T, String>>)>),
    /// The list is unchanged.
    Confirmed,
    /// The source cannot be asked, for this reason.
    Failed(String),
}

/// All entries of one source, by place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceListing {
    entries: BTreeMap<String, Result<MemberEntry, String>>,
    excess: usize,
}

impl SourceListing {
    /// The largest number of entries of one source: twice the members of a pool. More are only counted.
    pub const MAX_ENTRIES: usize = 20_000;

    /// Replaces the list. Returns true if that changes anything.
    pub fn replace(&mut self, items: Vec<Item>) -> bool {
        let earlier = std::mem::take(self);
        items.into_iter().for_each(|(place, entry)| self.set(place, Some(entry)));
        *self != earlier
    }

    /// Applies changes. Returns true if they change anything.
    pub fn change(&mut self, changes: Vec<(String, Option<Result<MemberEntry, String>>)>) -> bool {
        let mut is_change = false;
        for (place, entry) in changes {
            is_change |= self.entries.get(&place) != entry.as_ref();
            self.set(place, entry);
        }
        is_change
    }

    fn set(&mut self, place: String, entry: Option<Result<MemberEntry, String>>) {
        match entry {
            None => drop(self.entries.remove(&place)),
            Some(_) if self.entries.len() >= Self::MAX_ENTRIES && !self.entries.contains_key(&place) => {
                self.excess += 1;
            }
            Some(entry) => drop(self.entries.insert(place, entry)),
        }
    }

    /// Iterates over the entries, right or wrong, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Result<MemberEntry, String>)> {
        self.entries.iter().map(|(place, entry)| (place.as_str(), entry))
    }

    /// Iterates over the valid entries.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &MemberEntry)> {
        self.iter().filter_map(|(place, entry)| Some((place, entry.as_ref().ok()?)))
    }

    /// Returns the number of entries beyond the limit.
    pub fn excess(&self) -> usize {
        self.excess
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(port: u16) -> Result<MemberEntry, String> {
        Ok(MemberEntry::at(([192, 0, 2, 1], port).into()))
    }

    #[test]
    fn lists_replace_and_changes_add_up() {
        let mut listing = SourceListing::default();
        let wrong = || Err("no JSON".to_owned());
        assert!(listing.replace(vec![("a".to_owned(), entry(1)), ("b".to_owned(), wrong())]));
        assert!(!listing.replace(vec![("b".to_owned(), wrong()), ("a".to_owned(), entry(1))]), "the same");
        assert!(listing.change(vec![("b".to_owned(), Some(entry(2))), ("c".to_owned(), None)]));
        assert!(!listing.change(vec![("b".to_owned(), Some(entry(2))), ("c".to_owned(), None)]));
        assert_eq!(listing.entries().map(|(_, entry)| entry.address.port()).collect::<Vec<_>>(), [1, 2]);
        assert!(listing.change(vec![("a".to_owned(), None)]));
        assert!(listing.replace(Vec::new()));
        assert_eq!(listing, SourceListing::default());
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let mut listing = SourceListing::default();
        let items = (0..SourceListing::MAX_ENTRIES + 5).map(|number| (format!("{number:06}"), entry(1)));
        listing.replace(items.collect());
        assert_eq!((listing.iter().count(), listing.excess()), (SourceListing::MAX_ENTRIES, 5));
        listing.change(vec![("000001".to_owned(), Some(entry(7)))]);
        assert_eq!(listing.iter().nth(1).expect("it was there").1, &entry(7));
    }
}
