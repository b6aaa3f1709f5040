//! All small inputs of the table of query slots and of the rank of a reply, one after the other: where random
//! tests may miss a border, these cannot. Each test says how far it goes.

use std::time::{Duration, Instant};

use config::{Accept, Rank};
use dns::{Header, read_reply};
use engine::query_slots::{QUARANTINE, QuerySlot, QuerySlots, SlotState, SocketId};
use engine::rank;
use hedge::race::ReplyRank;

/// Covers each sequence of six operations on one slot of each of two sockets: draw, release, take back,
/// quarantine, and the passage of half or all of the quarantine. A drawn ID is never handed out twice, no
/// quarantine ends early, and each one ends when it is asked for.
#[test]
fn a_slot_is_free_in_flight_or_in_quarantine_and_nothing_else() {
    const OPERATIONS: usize = 10;
    let mut slots = QuerySlots::<u32, u32>::new([7; 32]);
    let mut now = Instant::now();
    for number in 0..OPERATIONS.pow(6) {
        let mut sockets = [Slot::Free; 2];
        let mut rest = number;
        for serial in 0..6 {
            let operation = rest % OPERATIONS;
            rest /= OPERATIONS;
            match operation {
                8 => now += QUARANTINE / 2,
                9 => now += QUARANTINE,
                _ => operate(&mut slots, &mut sockets, operation, serial, now),
            }
            while let Some((slot, note)) = slots.pop_ended(now) {
                let place = slot.socket().index();
                let Slot::Quarantined(held, kept, end) = sockets[place] else { panic!("{number}: {slot:?}") };
                assert!((held, kept) == (slot, note) && end <= now, "{number}");
                sockets[place] = Slot::Free;
            }
            let first_end = sockets
                .iter()
                .filter_map(|slot| if let Slot::Quarantined(.., end) = slot { Some(*end) } else { None })
                .min();
            assert!(first_end.is_none_or(|end| end > now), "{number}: a quarantine did not end");
            assert!(first_end.is_none_or(|end| slots.next_end().is_some_and(|next| next <= end)), "{number}");
            for slot in sockets {
                match slot {
                    Slot::Free => {}
                    Slot::InFlight(slot, data) => assert_eq!(slots.find(slot), Some(SlotState::InFlight(data))),
                    Slot::Quarantined(slot, note, _) => {
                        assert_eq!(slots.find(slot), Some(SlotState::Quarantined(note)));
                    }
                }
            }
        }
        for slot in sockets {
            if let Slot::InFlight(slot, _) | Slot::Quarantined(slot, ..) = slot {
                assert!(slots.release(slot), "{number}");
            }
        }
        assert!(slots.is_empty(), "{number}");
    }
}

/// Applies one of four operations to one of two sockets.
fn operate(slots: &mut QuerySlots<u32, u32>, sockets: &mut [Slot; 2], operation: usize, serial: u32, now: Instant) {
    let place = operation / 4;
    let before = sockets[place];
    sockets[place] = match (operation % 4, before) {
        (0, Slot::Free) => {
            let slot = slots.draw(SocketId(place as u32), serial, |_| true);
            assert_eq!(slot.socket().index(), place);
            Slot::InFlight(slot, serial)
        }
        (1, Slot::InFlight(slot, _) | Slot::Quarantined(slot, ..)) => {
            assert!(slots.release(slot) && !slots.release(slot));
            Slot::Free
        }
        (2, Slot::InFlight(slot, data)) => {
            assert_eq!(slots.take_back(slot), Some(SlotState::InFlight(data)));
            assert_eq!((slots.take_back(slot), slots.find(slot)), (None, None));
            Slot::Free
        }
        (2, Slot::Quarantined(slot, note, _)) => {
            assert_eq!(slots.take_back(slot), Some(SlotState::Quarantined(note)));
            Slot::Free
        }
        (3, Slot::InFlight(slot, data)) => {
            slots.quarantine(slot, now, |data| data + 100);
            Slot::Quarantined(slot, data + 100, now + QUARANTINE)
        }
        // A second quarantine changes nothing.
        (3, Slot::Quarantined(slot, ..)) => {
            slots.quarantine(slot, now + Duration::from_secs(1), |data| data + 200);
            before
        }
        _ => before,
    };
}

/// The state that a slot should have.
#[derive(Clone, Copy, Debug)]
enum Slot {
    Free,
    InFlight(QuerySlot, u32),
    Quarantined(QuerySlot, u32, Instant),
}

/// Covers the second word of the header with each rcode, AA and TC, with and without an answer, and with no
/// authority record, an SOA record, or an NS record of a delegation (docs/src/contract.md, Races).
#[test]
fn each_reply_has_the_rank_of_the_contract() {
    for (rcode, aa, tc) in (0..16)
        .flat_map(|rcode| [(false, false), (false, true), (true, false), (true, true)].map(|(aa, tc)| (rcode, aa, tc)))
    {
        for (has_answer, authority) in
            [false, true].into_iter().flat_map(|has| [None, Some(6), Some(2)].map(|rtype| (has, rtype)))
        {
            let bits = 0x8180 | u16::from(aa) << 10 | u16::from(tc) << 9 | rcode;
            let [high, low] = bits.to_be_bytes();
            let mut message = vec![0, 7, high, low, 0, 1, 0, has_answer.into(), 0, authority.is_some().into(), 0, 0];
            message.extend([1, b'a', 0, 0, 1, 0, 1]);
            if has_answer {
                message.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
            }
            match authority {
                Some(6) => {
                    message.extend([0, 0, 6, 0, 1, 0, 0, 0, 60, 0, 22]);
                    message.extend([0; 22]);
                }
                Some(rtype) => message.extend([0xC0, 12, 0, rtype, 0, 1, 0, 0, 0, 60, 0, 3, 1, b'b', 0]),
                None => {}
            }
            let reply = read_reply(&message).expect("a sound reply");
            // A referral comes from a server that is no authority for the name.
            let is_referral = authority == Some(2) && !has_answer && !aa;
            let expected = match rcode {
                0 if tc || has_answer || is_referral => Rank::Positive,
                0 if aa => Rank::NodataAuthoritative,
                0 => Rank::Nodata,
                3 if tc => Rank::Positive,
                3 => Rank::Nxdomain,
                _ => Rank::Failure,
            };
            assert_eq!(rank(&reply), expected, "{:?} {has_answer} {authority:?}", Header::read(&message));
        }
    }
}

/// Covers each rank with each way to accept replies.
#[test]
fn what_is_accepted_is_a_border_in_the_order_of_ranks() {
    let ranks = [
        Rank::Failure,
        Rank::Outdated,
        Rank::Nodata,
        Rank::Nxdomain,
        Rank::NodataAuthoritative,
        Rank::Positive,
        Rank::Doubtful,
        Rank::Decided,
    ];
    assert!(ranks.is_sorted());
    for accept in [Accept::Positive, Accept::Conclusive, Accept::Any] {
        for rank in ranks {
            // Doubtful and outdated replies wait for another, whatever is accepted.
            let is_open = rank.is_provisional() || rank == Rank::Outdated;
            assert_eq!(accept.accepts(rank), rank >= accept.lowest() && !is_open, "{accept:?} {rank:?}");
        }
        assert!(accept.accepts(Rank::Decided) && accept.accepts(Rank::Positive));
    }
    for rank in ranks {
        assert!(!Accept::Positive.accepts(rank) || Accept::Conclusive.accepts(rank), "{rank:?}");
        assert!(!Accept::Conclusive.accepts(rank) || Accept::Any.accepts(rank), "{rank:?}");
    }
}
