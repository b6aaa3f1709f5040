//! Places for things that come and go by the thousand: a key stays good until its thing is taken out, and never means
//! another one.

/// Things by key.
#[derive(Debug)]
pub(super) struct Slab<T> {
    /// All places, taken or free.
    places: Vec<Place<T>>,
    /// The free ones.
    free: Vec<u32>,
}

/// Where one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// The place.
    place: u32,
    /// How many things had been there before.
    before: u32,
}

/// One place.
#[derive(Debug)]
struct Place<T> {
    /// How many things were there before this one.
    before: u32,
    /// What is there.
    thing: Option<T>,
}

impl<T> Slab<T> {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    /// Finds a place for a thing.
    pub(super) fn insert(&mut self, thing: T) -> Key {
        if let Some(place) = self.free.pop() {
            let taken = &mut self.places[place as usize];
            taken.thing = Some(thing);
            return Key { place, before: taken.before };
        }
        let place = u32::try_from(self.places.len()).expect("fewer than four billion at a time");
        self.places.push(Place { before: 0, thing: Some(thing) });
        Key { place, before: 0 }
    }

    /// The thing of this key, if it is still there.
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.place as usize)?;
        place.thing.as_mut().filter(|_| place.before == key.before)
    }

    /// Takes the thing of this key out.
    pub(super) fn remove(&mut self, key: Key) {
        if self.get_mut(key).is_some() {
            let place = &mut self.places[key.place as usize];
            place.thing = None;
            place.before = place.before.wrapping_add(1);
            self.free.push(key.place);
        }
    }

    /// All that is there.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.places.iter().zip(0..).filter_map(|(place, number)| {
            let thing = place.thing.as_ref()?;
            Some((Key { place: number, before: place.before }, thing))
        })
    }

    /// Whether nothing is there.
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_under_another_key() {
        let mut slab = Slab::new();
        let (one, two) = (slab.insert("one"), slab.insert("two"));
        slab.remove(one);
        slab.remove(one);
        let three = slab.insert("three");
        assert_eq!((one.place, slab.places.len()), (three.place, 2));
        assert_eq!(slab.get_mut(one), None);
        assert_eq!(slab.get_mut(three), Some(&mut "three"));
        assert_eq!(slab.iter().map(|(_, thing)| *thing).collect::<Vec<_>>(), ["three", "two"]);
        slab.remove(two);
        assert!(!slab.is_empty());
        slab.remove(three);
        assert!(slab.is_empty());
    }
}
