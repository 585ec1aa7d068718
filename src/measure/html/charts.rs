//! Where things lie in the charts, in SVG units; the page draws them.

use serde::Serialize;

use super::super::interval::Estimate;
use super::super::report::{Measures, Report};
use super::super::table;
use super::super::{Calibration, Times};

/// Lines of an axis: where, and what it says there.
type Ticks = Vec<(f64, String)>;

/// Said against came true: a point for each bin, its interval, and how many alerts it has.
#[derive(Serialize)]
pub struct Reliability {
    ticks: Ticks,
    points: Vec<Point>,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    /// Where the bars of the alerts stand.
    floor: f64,
}

#[derive(Serialize)]
struct Point {
    x: f64,
    y: f64,
    low: f64,
    high: f64,
    /// Of its area the alerts.
    radius: f64,
    bar: f64,
    bar_width: f64,
    bar_height: f64,
    words: String,
}

pub fn reliability(calibration: &Calibration) -> Reliability {
    let (left, right, top, bottom, floor) = (66.0, 412.0, 14.0, 360.0, 456.0);
    let x = |share: f64| round(left + share * (right - left));
    let y = |share: f64| round(bottom - share * (bottom - top));
    let most = calibration.bins.iter().map(|bin| bin.threats.of).max().unwrap_or(1) as f64;
    let point = |bin: &super::super::Bin| {
        let share = bin.threats.of as f64 / most;
        Point {
            x: x(bin.said),
            y: y(bin.threats.value),
            low: y(bin.threats.low),
            high: y(bin.threats.high),
            radius: round(2.5 + 3.5 * share.sqrt()),
            bar: round(x(bin.from) + 1.0),
            bar_width: round((right - left) * (bin.to - bin.from) - 2.0),
            bar_height: round((40.0 * share).max(1.0)),
            words: format!(
                "{} alerts called {:.0} % on average: {:.0} % were threats",
                bin.threats.of,
                100.0 * bin.said,
                100.0 * bin.threats.value
            ),
        }
    };
    let ticks = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| (share, format!("{:.0} %", 100.0 * share)));
    Reliability {
        ticks: ticks.into_iter().map(|(share, words)| (round(share * (right - left)), words)).collect(),
        points: calibration.bins.iter().map(point).collect(),
        left,
        right,
        top,
        bottom,
        floor,
    }
}

/// Precision and recall of all and of the largest groups, a line each.
#[derive(Serialize)]
pub struct Rows<R> {
    height: f64,
    /// Where the plot ends, below which stands what the ticks say.
    bottom: f64,
    ticks: Ticks,
    rows: Vec<R>,
    /// Groups that found no place.
    left_out: usize,
}

#[derive(Serialize)]
pub struct Quality {
    name: String,
    y: f64,
    precision: Option<Mark>,
    recall: Option<Mark>,
}

/// A value with its interval.
#[derive(Serialize)]
struct Mark {
    x: f64,
    low: f64,
    high: f64,
    y: f64,
    words: String,
}

/// `None` where nobody has either.
pub fn quality(report: &Report) -> Option<Rows<Quality>> {
    let groups = report.groups.iter().map(|group| (table::name(&group.name), &group.measures));
    let measured: Vec<_> = std::iter::once(("all".to_owned(), &report.all))
        .chain(groups)
        .filter(|(_, measures)| measures.precision.is_some() || measures.recall.is_some())
        .collect();
    let left_out = measured.len().saturating_sub(MAX_ROWS);
    let rows = measured.into_iter().take(MAX_ROWS).enumerate().map(|(index, (name, measures))| {
        let y = TOP + ROW * (index as f64 + 0.5);
        let mark = |what: &str, estimate: Option<Estimate>, y: f64| {
            estimate.map(|it| Mark {
                x: across(it.value),
                low: across(it.low),
                high: across(it.high),
                y,
                words: format!(
                    "{name}: {what} {:.3} ({:.3} to {:.3}), of {} alerts",
                    it.value, it.low, it.high, it.of
                ),
            })
        };
        let (precision, recall) =
            (mark("precision", measures.precision, y - 5.0), mark("recall", measures.recall, y + 5.0));
        Quality { name: clip(&name), y, precision, recall }
    });
    let rows: Vec<_> = rows.collect();
    let bottom = TOP + ROW * rows.len() as f64;
    let ticks =
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0].map(|share| (across(share), format!("{:.0} %", 100.0 * share)));
    (!rows.is_empty()).then(|| Rows { height: bottom + 30.0, bottom, ticks: ticks.into(), rows, left_out })
}

/// How long things took, on a logarithmic axis.
#[derive(Serialize)]
pub struct Duration {
    name: String,
    y: f64,
    /// The median, then the 90th, 95th and 99th percentile.
    marks: Vec<(f64, String)>,
    from: f64,
    to: f64,
}

/// `None` where nothing took any time.
pub fn times(measures: &Measures) -> Option<Rows<Duration>> {
    let measured: Vec<_> =
        measures.times().into_iter().filter_map(|(name, times)| Some((name, times?))).collect();
    let all =
        measured.iter().flat_map(|(_, times)| [times.p50, times.p99]).map(|seconds| seconds.max(SHORTEST_S));
    let (least, most) = (all.clone().min_by(f64::total_cmp)?, all.max_by(f64::total_cmp)?);
    let first = TIMES.iter().rposition(|(seconds, _)| *seconds <= least).unwrap_or(0).min(TIMES.len() - 2);
    let last =
        TIMES.iter().position(|(seconds, _)| *seconds >= most).unwrap_or(TIMES.len() - 1).max(first + 1);
    let (shortest, longest) = (TIMES[first].0.ln(), TIMES[last].0.ln());
    let place = |seconds: f64| {
        let share = (seconds.max(SHORTEST_S).ln() - shortest) / (longest - shortest);
        across(share.clamp(0.0, 1.0))
    };
    let rows = measured.iter().enumerate().map(|(index, (name, times))| {
        let Times { p50, p90, p95, p99, .. } = *times;
        let named =
            [("median", p50), ("90th percentile", p90), ("95th percentile", p95), ("99th percentile", p99)];
        let marks = named.map(|(what, seconds)| {
            (place(seconds), format!("{}: {what} {}", time_name(name), table::duration(seconds)))
        });
        let y = TOP + ROW * (index as f64 + 0.5);
        Duration { name: time_name(name), y, marks: marks.into(), from: place(p50), to: place(p99) }
    });
    let rows: Vec<_> = rows.collect();
    let bottom = TOP + ROW * rows.len() as f64;
    let ticks =
        TIMES[first..=last].iter().map(|(seconds, words)| (place(*seconds), (*words).to_owned())).collect();
    Some(Rows { height: bottom + 30.0, bottom, ticks, rows, left_out: 0 })
}

/// `seconds_to_verdict`: `To verdict`.
pub fn time_name(name: &str) -> String {
    match name {
        "seconds_to_detect" => "To detect",
        "seconds_to_verdict" => "To verdict",
        "seconds_to_close" => "To close",
        other => other,
    }
    .to_owned()
}

/// Where a share of the axis lies.
fn across(share: f64) -> f64 {
    round(LEFT + share * (RIGHT - LEFT))
}

/// As much of a name as fits before the axis.
fn clip(name: &str) -> String {
    if name.chars().count() <= 24 { name.to_owned() } else { name.chars().take(23).chain(['…']).collect() }
}

/// A tenth of a unit is finer than a screen.
fn round(at: f64) -> f64 {
    (at * 10.0).round() / 10.0
}

const LEFT: f64 = 190.0;
const RIGHT: f64 = 690.0;
const TOP: f64 = 10.0;
/// Height of a line.
const ROW: f64 = 30.0;
const MAX_ROWS: usize = 21;
/// What is shorter stands at the axis' begin.
const SHORTEST_S: f64 = 0.001;
/// What an axis of times may say: seconds, and their words. What is longer stands at its end.
const TIMES: [(f64, &str); 11] = [
    (0.001, "1 ms"),
    (0.01, "10 ms"),
    (0.1, "0.1 s"),
    (1.0, "1 s"),
    (10.0, "10 s"),
    (60.0, "1 min"),
    (600.0, "10 min"),
    (3_600.0, "1 h"),
    (86_400.0, "1 d"),
    (864_000.0, "10 d"),
    (8_640_000.0, "100 d"),
];

#[cfg(test)]
mod tests {
    use super::super::super::Judged;
    use super::*;

    #[test]
    fn times_of_any_length_lie_on_the_axis() {
        for (shortest, longest) in [(0.0, 0.0), (1e-9, 1e12), (1e12, 1e12), (1.0, 1.0), (0.5, 90_000.0)] {
            let judged = [shortest, longest]
                .map(|seconds| Judged { seconds_to_close: Some(seconds), ..Judged::default() });
            let chart = times(&Measures::of(&judged)).unwrap();
            let marks = chart.rows[0].marks.iter().map(|(at, _)| *at);
            let all: Vec<_> = chart.ticks.iter().map(|(at, _)| *at).chain(marks).collect();
            assert!(chart.ticks.len() >= 2 && all.iter().all(|at| (LEFT..=RIGHT).contains(at)), "{all:?}");
        }
    }
}
