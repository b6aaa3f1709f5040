//! Tests that the figure is valid XML, is complete, and is the same each time.

use super::*;

/// Returns the curve of replies in 1 ms with a share of them in `late`.
fn curve(name: &str, late: Duration, extra: f64) -> Curve {
    let body =
        (0..100u32).map(|step| (Duration::from_micros(1000 + u64::from(step)), 1.0 - f64::from(step + 1) * 0.0099));
    let ccdf = body.chain([(late, 0.0)]).collect();
    Curve { name: name.to_owned(), ccdf, p999: late, extra }
}

/// Returns curves of policies as `simulate` compares them.
fn curves() -> Vec<Curve> {
    vec![
        curve("sequential", Duration::from_millis(500), 0.0),
        curve("race", Duration::from_micros(1200), 1.0),
        curve("hedge auto 5 %", Duration::from_micros(4100), 0.0102),
        curve("hedge <p90> & \"more\"", Duration::from_micros(3900), 0.05),
    ]
}

fn drawn(curves: &[Curve]) -> String {
    draw("1 ms, and 1 % 500 ms", curves).expect("nothing can fail in memory")
}

#[test]
fn figure_has_each_series_the_axes_and_a_legend() {
    let svg = drawn(&curves());
    let document = roxmltree::Document::parse(&svg).expect("an SVG is XML");
    assert_eq!(document.root_element().tag_name().name(), "svg");
    let texts: Vec<&str> =
        document.descendants().filter(|node| node.is_text()).filter_map(|node| node.text()).collect();
    let count = |text: &str| texts.iter().filter(|other| other.trim() == text).count();
    for (index, curve) in curves().iter().enumerate() {
        assert_eq!(count(&curve.name), 1, "{} stands in the legend", curve.name);
        let RGBColor(red, green, blue) = COLORS[index];
        let color = format!("#{red:02X}{green:02X}{blue:02X}");
        let drawn = |name: &str| {
            document
                .descendants()
                .filter(|node| {
                    node.has_tag_name(("http://www.w3.org/2000/svg", name)) && node.attribute("stroke") == Some(&color)
                })
                .count()
        };
        assert!(drawn("polyline") + drawn("line") >= 2, "the curve of {}, and its line in the legend", curve.name);
    }
    for text in
        ["1 ms, and 1 % 500 ms", "1 ms", "100 ms", "100 %", "0.1 %", "latency", "share of queries slower", "p99.9"]
    {
        assert!(count(text) > 0, "{text} is missing");
    }
}

#[test]
fn axes_hold_all_values_and_at_least_a_decade() {
    let ms = Duration::from_millis;
    let range = latencies([ms(1), ms(500)].into_iter());
    assert!(range.start < 1.0 && range.start > 0.5 && range.end > 500.0 && range.end < 1000.0, "{range:?}");
    for few in [&[ms(3)][..], &[ms(3), ms(4)], &[], &[Duration::ZERO]] {
        let range = latencies(few.iter().copied());
        assert!(range.start > 0.0 && range.end / range.start >= 10.0, "{few:?}: {range:?}");
    }
}

#[test]
fn labels_bear_their_units() {
    for (millis, expected) in [(1e-3, "1 µs"), (0.1, "100 µs"), (1.0, "1 ms"), (99.999_999_9, "100 ms"), (1e4, "10 s")]
    {
        assert_eq!(latency_label(&millis), expected);
    }
    assert_eq!([1.0, 0.099_999_999, 1e-6].map(|share| percent(&share)), ["100 %", "10 %", "0.0001 %"]);
}

#[test]
fn many_policies_look_different() {
    let looks: std::collections::HashSet<_> =
        (0..84).map(|index| (index % COLORS.len(), index % DASHES.len(), index % 3)).collect();
    assert_eq!(looks.len(), 84);
}

#[test]
fn equal_curves_give_equal_octets() {
    assert_eq!(drawn(&curves()), drawn(&curves()));
}

#[test]
fn any_name_and_any_number_can_be_drawn() {
    let odd = Curve { name: "\u{1}\u{fffe}]]>".to_owned(), ccdf: Vec::new(), p999: Duration::ZERO, extra: -0.1 };
    let many = (0..30).map(|index| curve(&format!("policy {index}"), Duration::from_millis(index), index as f64));
    let svg = drawn(&many.chain([odd]).collect::<Vec<_>>());
    assert!(roxmltree::Document::parse(&svg).is_ok());
    assert!(roxmltree::Document::parse(&drawn(&[])).is_ok(), "nothing to show");
}
