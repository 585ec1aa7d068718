//! A report as one HTML file that opens offline: no script, no other file, charts as inline SVG.

mod charts;

use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;

use super::interval::Estimate;
use super::report::{Confusion, Measures, Report};
use super::table::{self, duration, number};
use crate::closing::bursts::{Analyst, Burst};
use crate::text::escape;

pub fn render(report: &Report) -> String {
    let mut environment = Environment::new();
    // By the name's ending, minijinja escapes for HTML what is put in.
    environment.add_template("page.html", PAGE).expect("the page is compiled in and tested");
    let page = environment.get_template("page.html").expect("it was added");
    let sets = std::iter::once(("all", &report.all))
        .chain(report.blind.as_ref().map(|blind| ("decided blindly", blind)));
    let sets: Vec<_> = sets.collect();
    let text = page.render(Serde(Page {
        title: escape(&report.title).into_owned(),
        made_at: report.made_at.strftime("%F %T UTC").to_string(),
        sets: sets.iter().map(|(name, _)| *name).collect(),
        figures: figures(&sets.iter().map(|(_, measures)| *measures).collect::<Vec<_>>()),
        confusion: report.all.confusion,
        reliability: report.all.calibration.as_ref().map(charts::reliability),
        bins: report.all.calibration.as_ref().map(bins).unwrap_or_default(),
        quality: charts::quality(report),
        times: charts::times(&report.all),
        time_rows: time_rows(&report.all),
        by: report.by.map(super::By::as_str),
        groups: report.groups.iter().map(|group| Row::of(&group.name, &group.measures)).collect(),
        analysts: report.analysts.iter().map(person).collect(),
        bursts: report.bursts.iter().map(Burst::words).collect(),
        notes: report.notes.iter().map(|note| escape(note).into_owned()).collect(),
    }));
    text.expect("the page uses what it is given") + "\n"
}

/// What the page's template is given: words that are safe to show, and places in its charts.
#[derive(Serialize)]
struct Page {
    title: String,
    made_at: String,
    sets: Vec<&'static str>,
    figures: Vec<Figure>,
    confusion: Confusion,
    reliability: Option<charts::Reliability>,
    bins: Vec<[String; 4]>,
    quality: Option<charts::Rows<charts::Quality>>,
    times: Option<charts::Rows<charts::Duration>>,
    time_rows: Vec<[String; 7]>,
    by: Option<&'static str>,
    groups: Vec<Row>,
    analysts: Vec<[String; 6]>,
    bursts: Vec<String>,
    notes: Vec<String>,
}

/// One number of the report: its name, and for each set of alerts value, interval and what it is of.
#[derive(Serialize)]
struct Figure {
    name: String,
    cells: Vec<[String; 3]>,
}

fn figures(sets: &[&Measures]) -> Vec<Figure> {
    let Some(first) = sets.first() else { return Vec::new() };
    let mut figures = Vec::new();
    let count = |count: usize| [count.to_string(), String::new(), String::new()];
    let mut add = |name: &str, cell: &dyn Fn(&Measures) -> [String; 3]| {
        let cells = sets.iter().map(|measures| cell(measures)).collect();
        figures.push(Figure { name: capital(&table::words(name)), cells });
    };
    add("alerts", &|measures| count(measures.alerts));
    add("labelled", &|measures| count(measures.labelled));
    for (place, (name, _)) in first.proportions().into_iter().enumerate() {
        add(name, &|measures| {
            let estimate = measures.proportions()[place].1;
            let of = estimate.map_or(String::new(), |it| it.of.to_string());
            [table::value(estimate), range(estimate), of]
        });
    }
    for (place, (name, _)) in first.errors().into_iter().enumerate() {
        add(name, &|measures| {
            let of = measures.calibration.as_ref().map_or(String::new(), |it| it.alerts.to_string());
            [measures.errors()[place].1.map_or("-".to_owned(), number), String::new(), of]
        });
    }
    figures
}

/// A group's line.
#[derive(Serialize)]
struct Row {
    name: String,
    alerts: usize,
    labelled: usize,
    /// Value and interval: base rate, coverage, precision, recall, F1, false-positive rate.
    cells: Vec<[String; 2]>,
    ece: String,
}

impl Row {
    fn of(name: &str, measures: &Measures) -> Self {
        let cells = measures.proportions().into_iter().take(6).map(|(_, it)| [table::value(it), range(it)]);
        Self {
            name: table::name(name),
            alerts: measures.alerts,
            labelled: measures.labelled,
            cells: cells.collect(),
            ece: measures.calibration.as_ref().map_or("-".to_owned(), |calibration| number(calibration.ece)),
        }
    }
}

fn bins(calibration: &super::Calibration) -> Vec<[String; 4]> {
    let row = |bin: &super::Bin| {
        let threats = Some(bin.threats);
        let came_true = format!("{} ({})", table::value(threats), range(threats));
        [format!("{:.2}–{:.2}", bin.from, bin.to), number(bin.said), came_true, bin.threats.of.to_string()]
    };
    calibration.bins.iter().map(row).collect()
}

fn time_rows(measures: &Measures) -> Vec<[String; 7]> {
    let row = |(name, times): (&str, Option<super::Times>)| {
        let times = times?;
        let [mean, p50, p90, p95, p99] =
            [times.mean, times.p50, times.p90, times.p95, times.p99].map(duration);
        Some([charts::time_name(name), mean, p50, p90, p95, p99, times.alerts.to_string()])
    };
    measures.times().into_iter().filter_map(row).collect()
}

fn person(one: &Analyst) -> [String; 6] {
    let Analyst { analyst, closings, an_hour, against, bursts } = one;
    [
        escape(analyst).into_owned(),
        closings.to_string(),
        an_hour.to_string(),
        of(against.others, against.others_of),
        of(against.judge, against.judge_of),
        bursts.to_string(),
    ]
}

fn range(estimate: Option<Estimate>) -> String {
    estimate.map_or(String::new(), |it| format!("{}–{}", number(it.low), number(it.high)))
}

fn of(part: usize, of: usize) -> String {
    if of == 0 { "-".to_owned() } else { format!("{part} of {of}") }
}

fn capital(words: &str) -> String {
    let mut characters = words.chars();
    characters.next().map_or(String::new(), |first| first.to_uppercase().chain(characters).collect())
}

const PAGE: &str = include_str!("html/page.html");

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn nothing_of_a_stranger_is_markup_and_nothing_is_loaded() {
        let page = render(&testing::report());
        assert!(page.contains("&lt;b&gt;") && page.contains(r"\u{1b}[2J") && !page.contains("<b>"), "{page}");
        assert!(page.contains("Labels &lt;of&gt; site A"));
        assert!(page.contains(r#"content="default-src 'none'; style-src 'unsafe-inline'""#));
        for loader in [
            "<script",
            "<img",
            "<link",
            "<iframe",
            "src=",
            "url(",
            "@import",
            "http:",
            "javascript:",
            "onload",
        ] {
            assert!(!page.contains(loader), "{loader}");
        }
    }

    #[test]
    fn every_chart_has_a_role_and_a_title_and_its_numbers_lie_inside() {
        let page = render(&testing::report());
        let charts = page.split("<svg").skip(1).map(|rest| rest.split("</svg>").next().unwrap());
        // The figures' signs are no charts.
        let charts: Vec<_> = charts.filter(|chart| !chart.contains(r#"aria-hidden="true""#)).collect();
        assert_eq!(charts.len(), 3);
        for chart in charts {
            assert!(chart.contains(r#"role="img""#) && chart.contains("<title"), "{chart}");
            let size = chart.split_once(r#"viewBox="0 0 "#).unwrap().1.split('"').next().unwrap();
            let (width, height) = size.split_once(' ').unwrap();
            for (names, most) in [(["x", "cx", "x1", "x2"], width), (["y", "cy", "y1", "y2"], height)] {
                for name in names {
                    for rest in chart.split(&format!(" {name}=\"")).skip(1) {
                        let at: f64 = rest.split('"').next().unwrap().parse().unwrap();
                        assert!((0.0..=most.parse().unwrap()).contains(&at), "{name} {at} of {most}");
                    }
                }
            }
        }
    }

    #[test]
    fn of_nothing_there_is_a_page_without_charts() {
        let page = render(&testing::empty());
        assert!(!page.contains("<svg") && page.contains("Nothing") && page.ends_with("</html>\n"));
    }
}
