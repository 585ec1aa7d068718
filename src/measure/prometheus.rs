//! A report in Prometheus' text format (exposition format 0.0.4): gauges, for a scrape of a file.
//!
//! With groups each sample carries its group as a label and there is none for all, so that sums over a name are right.

use std::fmt::Write as _;

use super::report::{Measures, NAMELESS, Report};
use crate::telemetry::{MEASURE_COUNTS, MEASURE_PROPORTIONS, MEASURE_TIMES, MeasureName};
use crate::text::escape;

pub fn render(report: &Report) -> String {
    let sets: Vec<(String, &Measures)> = match report.by {
        None => vec![(String::new(), &report.all)],
        Some(by) => {
            let label = |name: &str| format!("{}=\"{}\"", by.as_str(), label_value(name));
            report.groups.iter().map(|group| (label(&group.name), &group.measures)).collect()
        }
    };
    let mut text = String::new();
    for (place, name) in MEASURE_COUNTS.iter().enumerate() {
        let of = |measures: &Measures| {
            let cells = measures.confusion.cells().map(|(_, count)| count);
            [measures.alerts, measures.labelled].into_iter().chain(cells).nth(place)
        };
        write(
            &mut text,
            name,
            sets.iter().map(|(labels, measures)| (labels.clone(), of(measures).map(|it| it as f64))),
        );
    }
    for (place, name) in MEASURE_PROPORTIONS.iter().enumerate() {
        let of = |measures: &Measures| measures.proportions().get(place).and_then(|(_, estimate)| *estimate);
        let samples = sets.iter().flat_map(|(labels, measures)| {
            let estimate = of(measures);
            let sample = |bound: &str, number| (with(labels, &format!("bound=\"{bound}\"")), number);
            [
                sample("estimate", estimate.map(|it| it.value)),
                sample("low", estimate.map(|it| it.low)),
                sample("high", estimate.map(|it| it.high)),
            ]
        });
        write(&mut text, name, samples);
    }
    for (place, name) in crate::telemetry::MEASURE_ERRORS.iter().enumerate() {
        let of = |measures: &Measures| measures.errors().get(place).and_then(|(_, error)| *error);
        write(&mut text, name, sets.iter().map(|(labels, measures)| (labels.clone(), of(measures))));
    }
    for (place, name) in MEASURE_TIMES.iter().enumerate() {
        let of = |measures: &Measures| measures.times().get(place).and_then(|(_, times)| *times);
        let samples = sets.iter().flat_map(|(labels, measures)| {
            let times = of(measures);
            let sample = |quantile: &str, number| (with(labels, &format!("quantile=\"{quantile}\"")), number);
            [
                sample("0.5", times.map(|it| it.p50)),
                sample("0.9", times.map(|it| it.p90)),
                sample("0.95", times.map(|it| it.p95)),
                sample("0.99", times.map(|it| it.p99)),
            ]
        });
        write(&mut text, name, samples);
    }
    text
}

/// One metric with its samples; what has no number has no sample, and no sample no metric.
fn write(text: &mut String, name: &MeasureName, samples: impl Iterator<Item = (String, Option<f64>)>) {
    let mut lines = samples.filter_map(|(labels, number)| number.map(|number| (labels, number))).peekable();
    if lines.peek().is_none() {
        return;
    }
    let (name, help) = name;
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge").expect("a string takes all that is written");
    for (labels, number) in lines {
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        writeln!(text, "{name}{labels} {number}").expect("a string takes all that is written");
    }
}

fn with(labels: &str, label: &str) -> String {
    if labels.is_empty() { label.to_owned() } else { format!("{labels},{label}") }
}

fn label_value(name: &str) -> String {
    let name = if name.is_empty() { NAMELESS.into() } else { escape(name) };
    name.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn samples_carry_their_group_and_names_cannot_break_out() {
        let text = render(&testing::report());
        let of_f1: Vec<_> = text.lines().filter(|line| line.contains("_f1")).collect();
        insta::assert_snapshot!(of_f1.join("\n"), @r#"
        # HELP watchpost_measured_f1 Harmonic mean of precision and recall.
        # TYPE watchpost_measured_f1 gauge
        watchpost_measured_f1{family="<b>\"ssh\"</b>\\u{1b}[2J",bound="estimate"} 0.7164179104477612
        watchpost_measured_f1{family="<b>\"ssh\"</b>\\u{1b}[2J",bound="low"} 0.582642043977966
        watchpost_measured_f1{family="<b>\"ssh\"</b>\\u{1b}[2J",bound="high"} 0.8205230649350688
        watchpost_measured_f1{family="web",bound="estimate"} 0.7142857142857143
        watchpost_measured_f1{family="web",bound="low"} 0.5833299607082064
        watchpost_measured_f1{family="web",bound="high"} 0.8169955387044322
        watchpost_measured_f1{family="=cmd|' /C calc'!A0",bound="estimate"} 0.6984126984126985
        watchpost_measured_f1{family="=cmd|' /C calc'!A0",bound="low"} 0.5585218984477067
        watchpost_measured_f1{family="=cmd|' /C calc'!A0",bound="high"} 0.8091251927039721
        "#);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (_, number) = line.rsplit_once(' ').unwrap();
            assert!(number.parse::<f64>().unwrap().is_finite(), "{line}");
        }
    }

    #[test]
    fn of_nothing_there_are_only_counts() {
        insta::assert_snapshot!(render(&testing::empty()), @r"
        # HELP watchpost_measured_alerts Alerts that were measured.
        # TYPE watchpost_measured_alerts gauge
        watchpost_measured_alerts 0
        # HELP watchpost_measured_labelled Alerts among them whose label says threat or no threat.
        # TYPE watchpost_measured_labelled gauge
        watchpost_measured_labelled 0
        # HELP watchpost_measured_true_positives Threats that were called one.
        # TYPE watchpost_measured_true_positives gauge
        watchpost_measured_true_positives 0
        # HELP watchpost_measured_false_positives Others that were called a threat.
        # TYPE watchpost_measured_false_positives gauge
        watchpost_measured_false_positives 0
        # HELP watchpost_measured_true_negatives Others that were not called a threat.
        # TYPE watchpost_measured_true_negatives gauge
        watchpost_measured_true_negatives 0
        # HELP watchpost_measured_false_negatives Threats that were not called one.
        # TYPE watchpost_measured_false_negatives gauge
        watchpost_measured_false_negatives 0
        ");
    }
}
