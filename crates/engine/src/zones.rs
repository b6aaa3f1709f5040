//! The suffixes of a name that `limits.per_zone` counts.

use limit::ZonePlaces;

use crate::state::Routes;

/// Returns the suffixes of two, three and four labels that a folded name is below, without those that do not
/// count. Such a suffix is no zone of one owner, so that one flood must not refuse all names below it: a
/// suffix that a route names, a public suffix such as `co.uk`, and the reverse zones.
pub(super) fn counted<'n>(qname: &'n [u8], routes: &Routes) -> [Option<&'n [u8]>; ZonePlaces::LEVELS] {
    // The last suffixes of a walk from the longest to the root, by their number of labels.
    let mut last = [None; 2 + ZonePlaces::LEVELS];
    for suffix in dns::suffixes(qname).skip(1) {
        last.rotate_right(1);
        last[0] = Some(suffix);
    }
    let [_root, _top, two, three, four] = last;
    let is_counted = |suffix: &&[u8]| *suffix != IN_ADDR_ARPA && !routes.has(suffix);
    // The first label of `ip6.arpa` is short too.
    let two = two.filter(|suffix| suffix.first().is_some_and(|length| *length > SHORT));
    [two, three, four].map(|suffix| suffix.filter(is_counted))
}

const IN_ADDR_ARPA: &[u8] = b"\x07in-addr\x04arpa\0";

/// The longest first label of a public suffix of two labels, such as `co.uk` or `com.au`.
const SHORT: u8 = 3;

#[cfg(test)]
mod tests {
    use config::{PoolIndex, Route};
    use dns::Name;

    use super::*;

    #[test]
    fn suffixes_count_from_two_to_four_labels_unless_they_are_shared() {
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let route = name("corp.example");
        let routes = [Name::root(), route].map(|suffix| Route { suffix, is_below_only: false, pool: PoolIndex(0) });
        let routes = Routes::new(&routes);
        for (qname, expected) in [
            (".", &[][..]),
            ("example", &[]),
            ("example.org", &[]),
            ("www.example.org", &["example.org."]),
            ("a.www.example.org", &["example.org.", "www.example.org."]),
            ("c.b.a.www.example.org", &["example.org.", "www.example.org.", "a.www.example.org."]),
            ("www.example.co.uk", &["example.co.uk."]),
            ("example.co.uk", &[]),
            ("a.www.abc.example", &["www.abc.example."]),
            ("www.abcd.example", &["abcd.example."]),
            ("a.www.corp.example", &["www.corp.example."]),
            ("4.3.2.10.in-addr.arpa", &["10.in-addr.arpa.", "2.10.in-addr.arpa."]),
            ("1.0.8.b.d.0.1.0.0.2.ip6.arpa", &["2.ip6.arpa.", "0.2.ip6.arpa."]),
        ] {
            let qname = name(qname);
            let counted = counted(qname.as_wire(), &routes).into_iter().flatten();
            let counted: Vec<_> = counted.map(|suffix| dns::display_name(suffix).to_string()).collect();
            assert_eq!(counted, expected, "{qname}");
        }
    }
}
