//! A report as CSV: a line for all alerts, one for the blindly decided and one for each group.

use super::report::{Measures, NAMELESS, Report};
use crate::text::escape;

pub fn render(report: &Report) -> String {
    let mut lines = vec![header(&report.all)];
    lines.push(line("all", "", &report.all));
    lines.extend(report.blind.as_ref().map(|blind| line("blind", "", blind)));
    let by = report.by.map_or("", super::By::as_str);
    lines.extend(report.groups.iter().map(|group| line(by, &name(&group.name), &group.measures)));
    let mut writer = csv::Writer::from_writer(Vec::new());
    for line in lines {
        writer.write_record(line).expect("every line has the header's columns, and memory takes them");
    }
    let text = writer.into_inner().expect("memory takes what is written");
    String::from_utf8(text).expect("made of strings")
}

fn header(measures: &Measures) -> Vec<String> {
    let mut header: Vec<String> = ["by", "name", "alerts", "labelled"].map(String::from).into();
    header.extend(measures.confusion.cells().map(|(name, _)| name.to_owned()));
    for (name, _) in measures.proportions() {
        header.extend([name.to_owned(), format!("{name}_low"), format!("{name}_high")]);
    }
    header.push("threshold_at_recall_95".to_owned());
    header.extend(measures.errors().map(|(name, _)| name.to_owned()));
    for (name, _) in measures.times() {
        header.extend(["mean", "p50", "p90", "p95", "p99"].map(|part| format!("{name}_{part}")));
    }
    header
}

fn line(by: &str, name: &str, measures: &Measures) -> Vec<String> {
    let mut line = vec![by.to_owned(), name.to_owned()];
    line.extend([measures.alerts, measures.labelled].map(|count| count.to_string()));
    line.extend(measures.confusion.cells().map(|(_, count)| count.to_string()));
    for (_, estimate) in measures.proportions() {
        line.extend(
            [estimate.map(|it| it.value), estimate.map(|it| it.low), estimate.map(|it| it.high)].map(cell),
        );
    }
    line.push(cell(measures.at_recall_95.map(|at| at.threshold)));
    line.extend(measures.errors().map(|(_, error)| cell(error)));
    for (_, times) in measures.times() {
        line.extend(match times {
            None => [None; 5].map(cell),
            Some(times) => [times.mean, times.p50, times.p90, times.p95, times.p99].map(Some).map(cell),
        });
    }
    line
}

/// Empty where there is no number, as spreadsheets take it.
fn cell(number: Option<f64>) -> String {
    number.map_or(String::new(), |number| number.to_string())
}

/// A group's name; where a spreadsheet would take it for a formula, behind an apostrophe.
fn name(name: &str) -> String {
    let name = if name.is_empty() { NAMELESS.into() } else { escape(name) };
    if name.starts_with(['=', '+', '-', '@']) { format!("'{name}") } else { name.into_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn every_line_has_the_headers_columns_and_no_formula() {
        let text = render(&testing::report());
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().unwrap().clone();
        let of = |name: &str| header.iter().position(|column| column == name).unwrap();
        let lines: Vec<_> = reader.records().map(Result::unwrap).collect();
        let names: Vec<_> = lines.iter().map(|line| (&line[0], &line[1])).collect();
        assert_eq!(
            names,
            [
                ("all", ""),
                ("blind", ""),
                ("family", "<b>\"ssh\"</b>\\u{1b}[2J"),
                ("family", "web"),
                ("family", "'=cmd|' /C calc'!A0"),
                ("family", "silent"),
            ]
        );
        assert_eq!(
            lines[0][of("brier")].parse::<f64>().unwrap(),
            testing::report().all.calibration.unwrap().brier
        );
        assert_eq!((&lines[5][of("f1")], &lines[5][of("f1_low")], &lines[5][of("alerts")]), ("", "", "1"));
    }
}
