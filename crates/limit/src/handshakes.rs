//! The rate of handshakes of one client, because each costs the server far more than the client.
//!
//! A table of fixed size counts those of the present second, by a keyed hash of the client, so that an
//! attacker cannot choose collisions. A client whose place another one holds is admitted and not counted.

/// The handshakes of clients in the present second.
#[derive(Debug, Default)]
pub struct HandshakeRates(Vec<HandshakeCount>);

#[derive(Clone, Copy, Debug, Default)]
struct HandshakeCount {
    tag: u32,
    second: u32,
    begun: u32,
}

impl HandshakeRates {
    /// Returns true if a client with this hash may start one more in this second. A `limit` of 0 is no limit.
    pub fn admit(&mut self, client: u64, second: u32, limit: u32) -> bool {
        if limit == 0 {
            return true;
        }
        self.0.resize(PLACES, HandshakeCount::default());
        let (tag, place) = ((client >> 32) as u32, client as usize % PLACES);
        let Some(count) = self.0.get_mut(place) else { return true };
        if (count.tag, count.second) != (tag, second) {
            if count.begun > 0 && count.second == second {
                return true;
            }
            *count = HandshakeCount { tag, second, begun: 0 };
        }
        count.begun = count.begun.saturating_add(1);
        count.begun <= limit
    }
}

/// The number of places: 48 KiB.
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
        // A place that another client holds.
        assert_eq!(admitted(&mut rates, 3 << 32 | 7, 1, 3), 10);
        assert_eq!(admitted(&mut rates, 3 << 32 | 7, 2, 3), 3);
    }
}
