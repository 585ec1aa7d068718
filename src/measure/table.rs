//! A report for the terminal.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table};

use super::interval::Estimate;
use super::report::{Measures, NAMELESS, Report};
use crate::text::{escape, escape_within};

pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let mut say = |shown: &dyn std::fmt::Display| {
        // Cells are padded to the column's width, the last one of a line too.
        for line in shown.to_string().split('\n') {
            writeln!(text, "{}", line.trim_end()).expect("a string takes all that is written");
        }
    };
    say(&escape(&report.title));
    say(&figures(&report.all));
    if let Some(blind) = &report.blind {
        say(&"\ndecided without seeing the verdict:");
        say(&figures(blind));
    }
    if report.all.times().iter().any(|(_, times)| times.is_some()) {
        say(&"");
        say(&times(&report.all));
    }
    if let Some(calibration) = &report.all.calibration {
        say(&"");
        let mut table = table(&["probability", "said", "came true", "95 %", "alerts"]);
        for bin in &calibration.bins {
            let threats = Some(bin.threats);
            let range = format!("{:.2} .. {:.2}", bin.from, bin.to);
            table.add_row([
                range,
                number(bin.said),
                value(threats),
                range_of(threats),
                bin.threats.of.to_string(),
            ]);
        }
        say(&table);
    }
    if let Some(by) = report.by {
        say(&"");
        say(&groups(by.as_str(), report));
    }
    if !report.analysts.is_empty() {
        say(&"");
        say(&analysts(report));
    }
    for note in &report.notes {
        say(&format!("note: {}", escape(note)));
    }
    text
}

/// What analysts closed, and their bursts.
pub fn analysts(report: &Report) -> String {
    let mut people =
        table(&["analyst", "closings", "an hour", "against others", "against the judge", "bursts"]);
    for one in &report.analysts {
        let of = |part: usize, of: usize| if of == 0 { "-".to_owned() } else { format!("{part} of {of}") };
        people.add_row([
            escape_within(&one.analyst, NAME),
            one.closings.to_string(),
            one.an_hour.to_string(),
            of(one.against.others, one.against.others_of),
            of(one.against.judge, one.against.judge_of),
            one.bursts.to_string(),
        ]);
    }
    let mut text = people.to_string();
    for burst in &report.bursts {
        write!(text, "\nburst: {}", burst.words()).expect("a string takes all that is written");
    }
    text
}

fn figures(measures: &Measures) -> Table {
    let mut table = table(&["measure", "value", "95 %", "of"]);
    let count = |count: usize| [count.to_string(), String::new(), String::new()];
    table.add_row(row("alerts", count(measures.alerts)));
    table.add_row(row("labelled", count(measures.labelled)));
    for (name, estimate) in measures.proportions() {
        let of = estimate.map_or(String::new(), |estimate| estimate.of.to_string());
        table.add_row(row(&words(name), [value(estimate), range_of(estimate), of]));
    }
    let of =
        measures.calibration.as_ref().map_or(String::new(), |calibration| calibration.alerts.to_string());
    for (name, error) in measures.errors() {
        let error = error.map_or_else(none, number);
        table.add_row(row(&words(name), [error, String::new(), of.clone()]));
    }
    for (name, cell) in measures.confusion.cells() {
        table.add_row(row(&words(name), count(cell)));
    }
    table
}

fn times(measures: &Measures) -> Table {
    let mut table = table(&["time", "mean", "p50", "p90", "p95", "p99", "alerts"]);
    for (name, times) in measures.times() {
        let name = words(name.trim_start_matches("seconds_"));
        table.add_row(match times {
            None => [name, none(), none(), none(), none(), none(), "0".to_owned()],
            Some(times) => {
                let shown = [times.mean, times.p50, times.p90, times.p95, times.p99].map(duration);
                let [mean, p50, p90, p95, p99] = shown;
                [name, mean, p50, p90, p95, p99, times.alerts.to_string()]
            }
        });
    }
    table
}

fn groups(by: &'static str, report: &Report) -> Table {
    let header = [
        by,
        "alerts",
        "labelled",
        "base rate",
        "coverage",
        "precision",
        "95 %",
        "recall",
        "95 %",
        "F1",
        "95 %",
        "FP rate",
        "95 %",
        "ECE",
    ];
    let mut table = table(&header);
    for group in &report.groups {
        let measures = &group.measures;
        let mut cells = vec![name(&group.name), measures.alerts.to_string(), measures.labelled.to_string()];
        cells.extend([value(measures.base_rate), value(measures.coverage)]);
        for estimate in [measures.precision, measures.recall, measures.f1, measures.false_positive_rate] {
            cells.extend([value(estimate), range_of(estimate)]);
        }
        cells.push(measures.calibration.as_ref().map_or_else(none, |calibration| number(calibration.ece)));
        table.add_row(cells);
    }
    table
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn row(name: &str, rest: [String; 3]) -> [String; 4] {
    let [value, range, of] = rest;
    [name.to_owned(), value, range, of]
}

/// A group's name, made safe.
pub(super) fn name(name: &str) -> String {
    if name.is_empty() { NAMELESS.to_owned() } else { escape_within(name, NAME) }
}

/// `false_positive_rate_at_recall_95` as a reader says it.
pub(super) fn words(name: &str) -> String {
    match name {
        "f1" => "F1".to_owned(),
        "ece" => "ECE".to_owned(),
        "brier" => "Brier score".to_owned(),
        "false_positive_rate_at_recall_95" => "false-positive rate at recall 95 %".to_owned(),
        "false_positive_rate" => "false-positive rate".to_owned(),
        name => name.replace('_', " "),
    }
}

pub(super) fn value(estimate: Option<Estimate>) -> String {
    estimate.map_or_else(none, |estimate| number(estimate.value))
}

pub(super) fn range_of(estimate: Option<Estimate>) -> String {
    estimate.map_or_else(none, |estimate| format!("{} .. {}", number(estimate.low), number(estimate.high)))
}

pub(super) fn number(number: f64) -> String {
    format!("{number:.3}")
}

/// Seconds as a person reads them, three digits or so.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        _ if seconds < 10.0 => format!("{seconds:.2} s"),
        _ if seconds < 120.0 => format!("{seconds:.0} s"),
        _ if seconds < 7_200.0 => format!("{:.0} min", seconds / 60.0),
        _ if seconds < 172_800.0 => format!("{:.1} h", seconds / 3_600.0),
        _ => format!("{:.1} d", seconds / 86_400.0),
    }
}

fn none() -> String {
    "-".to_owned()
}

/// Characters of a name.
const NAME: usize = 48;

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn a_report_is_read_at_a_glance() {
        insta::assert_snapshot!(render(&testing::report()), @r#"
        Labels <of> site A
         measure                             value            95 %   of
         alerts                                201
         labelled                              200
         base rate                           0.610  0.541 .. 0.675  200
         coverage                            0.900  0.851 .. 0.934  200
         precision                           0.789  0.694 .. 0.860   90
         recall                              0.645  0.553 .. 0.729  110
         F1                                  0.710  0.634 .. 0.776  129
         false-positive rate                 0.271  0.181 .. 0.385   70
         false-positive rate at recall 95 %  0.808  0.707 .. 0.880   78
         ECE                                 0.126                  200
         Brier score                         0.216                  200
         true positives                         71
         false positives                        19
         true negatives                         51
         false negatives                        39

        decided without seeing the verdict:
         measure                             value            95 %  of
         alerts                                 20
         labelled                               20
         base rate                           0.650  0.433 .. 0.819  20
         coverage                            0.900  0.699 .. 0.972  20
         precision                           0.778  0.453 .. 0.937   9
         recall                              0.583  0.320 .. 0.807  12
         F1                                  0.667  0.423 .. 0.845  14
         false-positive rate                 0.333  0.097 .. 0.700   6
         false-positive rate at recall 95 %  1.000  0.646 .. 1.000   7
         ECE                                 0.439                  20
         Brier score                         0.273                  20
         true positives                          7
         false positives                         2
         true negatives                          4
         false negatives                         5

         time           mean     p50    p90    p95    p99  alerts
         to detect    9.50 s  9.00 s   17 s   18 s   19 s     200
         to verdict        -       -      -      -      -       0
         to close    100 min  99 min  3.0 h  3.1 h  3.3 h     200

         probability    said  came true            95 %  alerts
         0.00 .. 0.07  0.033      0.308  0.127 .. 0.576      13
         0.07 .. 0.13  0.100      0.286  0.117 .. 0.546      14
         0.13 .. 0.20  0.167      0.308  0.127 .. 0.576      13
         0.20 .. 0.27  0.232      0.308  0.127 .. 0.576      13
         0.27 .. 0.33  0.300      0.500  0.268 .. 0.732      14
         0.33 .. 0.40  0.368      0.615  0.355 .. 0.823      13
         0.40 .. 0.47  0.432      0.769  0.497 .. 0.918      13
         0.47 .. 0.53  0.500      0.571  0.326 .. 0.786      14
         0.53 .. 0.60  0.568      0.692  0.424 .. 0.873      13
         0.60 .. 0.67  0.633      0.692  0.424 .. 0.873      13
         0.67 .. 0.73  0.700      0.714  0.454 .. 0.883      14
         0.73 .. 0.80  0.768      0.692  0.424 .. 0.873      13
         0.80 .. 0.87  0.833      0.846  0.578 .. 0.957      13
         0.87 .. 0.93  0.900      0.857  0.601 .. 0.960      14
         0.93 .. 1.00  0.967      1.000  0.772 .. 1.000      13

         family                 alerts  labelled  base rate  coverage  precision            95 %  recall            95 %     F1            95 %  FP rate            95 %    ECE
         <b>"ssh"</b>\u{1b}[2J      67        67      0.612     0.896      0.800  0.627 .. 0.905   0.649  0.488 .. 0.782  0.716  0.583 .. 0.821    0.261  0.125 .. 0.465  0.139
         web                        67        67      0.642     0.910      0.806  0.637 .. 0.908   0.641  0.484 .. 0.773  0.714  0.583 .. 0.817    0.273  0.132 .. 0.482  0.139
         =cmd|' /C calc'!A0         66        66      0.576     0.894      0.759  0.579 .. 0.878   0.647  0.479 .. 0.785  0.698  0.559 .. 0.809    0.280  0.143 .. 0.476  0.149
         silent                      1         0          -         -          -               -       -               -      -               -        -               -      -
        "#);
    }

    #[test]
    fn of_nothing_it_says_nothing() {
        insta::assert_snapshot!(render(&testing::empty()), @r"
        Nothing
         measure                             value  95 %  of
         alerts                                  0
         labelled                                0
         base rate                               -     -
         coverage                                -     -
         precision                               -     -
         recall                                  -     -
         F1                                      -     -
         false-positive rate                     -     -
         false-positive rate at recall 95 %      -     -
         ECE                                     -
         Brier score                             -
         true positives                          0
         false positives                         0
         true negatives                          0
         false negatives                         0
        ");
    }
}
