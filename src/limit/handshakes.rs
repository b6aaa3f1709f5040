//! How many handshakes one client may begin in a second: each costs us far more than the client.
//!
//! A table of a fixed size counts those of the second that runs, by a keyed hash of the client, so that nobody chooses whom to meet.
//! Whoever finds his place with another client is let in and not counted: strangers are no reason to refuse anybody.

/// The handshakes of clients in the second that runs.
#[derive(Debug, Default)]
pub struct HandshakeRates(Vec<Count>);

/// Those of one client.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Part of the hash of the client.
    tag: u32,
    /// Which second it was.
    second: u32,
    begun: u32,
}

impl HandshakeRates {
    /// Whether a client with this hash may begin one more in this second, where `limit` are allowed; 0 is no limit. Takes no memory before
    /// there is a limit.
    pub fn admit(&mut self, client: u64, second: u32, limit: u32) -> bool {
        if limit == 0 {
            return true;
        }
        self.0.resize(PLACES, Count::default());
        let (tag, place) = ((client >> 32) as u32, client as usize % PLACES);
        let Some(count) = self.0.get_mut(place) else { return true };
        if (count.tag, count.second) != (tag, second) {
            if count.begun > 0 && count.second == second {
                return true;
            }
            *count = Count { tag, second, begun: 0 };
        }
        count.begun = count.begun.saturating_add(1);
        count.begun <= limit
    }
}

/// Clients that are told apart: 48 KiB.
const PLACES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_so_many_in_each_second() {
        let mut rates = HandshakeRates::default();
        let [one, other] = [1 << 32 | 7, 2 << 32 | 8];
        let admitted = |rates: &mut HandshakeRates, client, second, limit| {
            (0..10).filter(|_| rates.admit(client, second, limit)).count()
        };
        assert_eq!(admitted(&mut rates, one, 0, 0), 10, "no limit");
        assert_eq!(rates.0.capacity(), 0);
        assert_eq!(admitted(&mut rates, one, 0, 3), 3);
        assert_eq!(admitted(&mut rates, other, 0, 3), 3);
        assert_eq!(admitted(&mut rates, one, 1, 3), 3, "the next second");
        // Where another stands already.
        assert_eq!(admitted(&mut rates, 3 << 32 | 7, 1, 3), 10);
        assert_eq!(admitted(&mut rates, 3 << 32 | 7, 2, 3), 3);
    }
}
