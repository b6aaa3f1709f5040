//! The words of `hedgerow simulate` for a backend.

use std::time::Duration;

use engine::sim::{BackendModel, Course, Delay, When};

pub(super) fn backend(model: &BackendModel) -> String {
    let mut words = vec![format!("latency={}", course(&model.delay, delay))];
    if model.loss != Course::always(0.0) {
        words.push(format!("loss={}", course(&model.loss, |loss| share(*loss))));
    }
    words.extend(model.stalls.iter().map(|stall| format!("stall={}", when(stall))));
    if let Some(capacity) = &model.capacity {
        words.push(format!("service={} servers={}", delay(&capacity.service), capacity.servers));
    }
    if let Some(site) = &model.site.name {
        words.push(format!("site={site} slow={}", course(&model.site.slow, |factor| format!("{factor}x"))));
    }
    words.join(" ")
}

fn course<T>(course: &Course<T>, value: impl Fn(&T) -> String) -> String {
    let mut text = value(&course.usual);
    for (other, times) in &course.at_times {
        text += &format!(",{}@{}", value(other), when(times));
    }
    text
}

fn when(when: &When) -> String {
    match when {
        When::Between { from, to } => format!("{}..{}", time(*from), time(*to)),
        When::NowAndThen { length, every } => format!("{}/{}", time(*length), time(*every)),
    }
}

fn delay(delayed: &Delay) -> String {
    match delayed {
        Delay::Constant(constant) => time(*constant),
        Delay::Uniform { from, to } => format!("uniform({},{})", time(*from), time(*to)),
        Delay::Lognormal { median, sigma } => format!("lognormal({},{sigma})", time(*median)),
        Delay::Pareto { scale, shape } => format!("pareto({},{shape})", time(*scale)),
        Delay::Mixture { usual, others } => {
            let mut text = delay(usual);
            for (chance, other) in others {
                text += &format!("+{}:{}", share(*chance), delay(other));
            }
            text
        }
        Delay::Empirical(_) => unreachable!("no model is measured"),
    }
}

fn share(share: f64) -> String {
    format!("{:.2}%", share * 100.0)
}

fn time(time: Duration) -> String {
    let micros = time.as_micros();
    if micros.is_multiple_of(1_000) { format!("{}ms", micros / 1_000) } else { format!("{micros}us") }
}
