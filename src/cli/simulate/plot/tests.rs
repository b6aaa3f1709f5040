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
fn the_figure_is_sound_and_says_everything() {
    let svg = drawn(&curves());
    let document = roxmltree::Document::parse(&svg).expect("an SVG is XML");
    assert_eq!(document.root_element().tag_name().name(), "svg");
    let texts: Vec<&str> =
        document.descendants().filter(|node| node.is_text()).filter_map(|node| node.text()).collect();
    let count = |text: &str| texts.iter().filter(|other| other.trim() == text).count();
    for curve in curves() {
        assert_eq!(count(&curve.name), 2, "{} stands in the legend and at its point", curve.name);
    }
    for text in ["1 ms, and 1 % 500 ms", "1 ms", "100 ms", "100 %", "0.1 %", "latency", "share of queries slower"] {
        assert!(count(text) > 0, "{text} is missing");
    }
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
