//! What Loki answers: lines by stream, or numbers by series.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

use crate::datasource::kept::Kept;
use crate::datasource::{Limits, QueryError, Rows, bounded};

pub(super) enum Found {
    Lines(Vec<Stream>),
    Samples(Samples),
}

/// Lines that have their labels in common.
#[derive(Deserialize)]
pub(super) struct Stream {
    #[serde(rename = "stream")]
    labels: Map<String, Value>,
    values: Vec<Line>,
}

/// Nanoseconds since 1970 as text, the line, and where the server tells them apart from the stream's labels,
/// structured metadata and what the query parsed.
#[derive(Deserialize)]
pub(super) struct Line(Nanoseconds, String, #[serde(default)] Map<String, Value>);

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Nanoseconds {
    text: String,
    at: i64,
}

impl TryFrom<String> for Nanoseconds {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Ok(Self { at: text.parse()?, text })
    }
}

impl Stream {
    pub(super) fn times(&self) -> impl Iterator<Item = i128> {
        self.values.iter().map(|line| line.0.at.into())
    }

    /// Those that are newer than `after`.
    pub(super) fn lines(&self, after: Option<i128>) -> impl Iterator<Item = &Line> {
        self.values.iter().filter(move |line| after.is_none_or(|after| i128::from(line.0.at) > after))
    }

    pub(super) fn row(&self, line: &Line) -> Map<String, Value> {
        let Line(time, text, more) = line;
        let mut row = Map::with_capacity(2 + self.labels.len());
        row.insert("timestamp".to_owned(), time.text.as_str().into());
        row.insert("line".to_owned(), text.as_str().into());
        add_all(&mut row, &self.labels);
        for (name, value) in more {
            match value {
                // `structuredMetadata` and `parsed`, each a map.
                Value::Object(inner) => add_all(&mut row, inner),
                value => add(&mut row, name, value),
            }
        }
        row
    }
}

/// Numbers, each with its labels.
pub(super) struct Samples {
    rows: Vec<Map<String, Value>>,
    /// The sum of each series' last value, its integer part.
    sum: u64,
}

impl Samples {
    fn new<'a>(
        series: impl Iterator<Item = (&'a Map<String, Value>, &'a [Point])>,
    ) -> Result<Self, QueryError> {
        let mut rows = Vec::new();
        let mut sum = 0.0;
        for (labels, points) in series {
            for Point(time, text) in points {
                let mut row = Map::with_capacity(2 + labels.len());
                row.insert("timestamp".to_owned(), time.clone().into());
                row.insert("value".to_owned(), text.as_str().into());
                add_all(&mut row, labels);
                rows.push(row);
            }
            if let Some(Point(_, text)) = points.last() {
                let value: f64 = text
                    .parse()
                    .map_err(|_| QueryError::Unreadable(format!("`{}` is no number", bounded(text))))?;
                // A ratio of nothing to nothing hides no other series.
                sum += if value.is_nan() { 0.0 } else { value };
            }
        }
        // Stays within 0 and the largest number.
        Ok(Self { rows, sum: sum as u64 })
    }

    pub(super) fn into_rows(self, limits: &Limits) -> Rows {
        let mut kept = Kept::new(limits);
        for row in &self.rows {
            kept.push(row);
        }
        Rows { count: self.sum, ..kept.into_rows() }
    }
}

/// Seconds since 1970 and the value as text.
#[derive(Deserialize)]
struct Point(Number, String);

#[derive(Deserialize)]
struct Answer {
    status: String,
    data: Data,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Streams(#[serde(deserialize_with = "list")] Vec<Stream>),
    Matrix(#[serde(deserialize_with = "list")] Vec<Series>),
    Vector(#[serde(deserialize_with = "list")] Vec<Sample>),
    Scalar(Point),
}

/// An empty list may be `null`, as Go writes it.
fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

#[derive(Deserialize)]
struct Series {
    metric: Map<String, Value>,
    values: Vec<Point>,
}

#[derive(Deserialize)]
struct Sample {
    metric: Map<String, Value>,
    value: Point,
}

/// The body of an answer to `query_range`, or to `query`.
pub(super) fn read(body: &[u8]) -> Result<Found, QueryError> {
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| QueryError::Unreadable(format!("it is not what Loki answers: {error}")))?;
    if answer.status != "success" {
        return Err(QueryError::Unreadable(format!("its status is `{}`", bounded(&answer.status))));
    }
    let none = Map::new();
    Ok(match answer.data {
        Data::Streams(streams) => Found::Lines(streams),
        Data::Matrix(series) => {
            let series = series.iter().map(|series| (&series.metric, series.values.as_slice()));
            Found::Samples(Samples::new(series)?)
        }
        Data::Vector(samples) => {
            let series = samples.iter().map(|sample| (&sample.metric, std::slice::from_ref(&sample.value)));
            Found::Samples(Samples::new(series)?)
        }
        Data::Scalar(point) => {
            Found::Samples(Samples::new(std::iter::once((&none, std::slice::from_ref(&point))))?)
        }
    })
}

/// The version that `/loki/api/v1/status/buildinfo` tells.
pub(super) fn version(body: &[u8]) -> Option<String> {
    let info: Value = serde_json::from_slice(body).ok()?;
    Some(bounded(info["version"].as_str()?))
}

fn add_all(row: &mut Map<String, Value>, labels: &Map<String, Value>) {
    for (name, value) in labels {
        add(row, name, value);
    }
}

/// Adds a label; where its name is taken, as `line` may be by what a log says of itself, with `_2`, `_3` ... behind it.
fn add(row: &mut Map<String, Value>, name: &str, value: &Value) {
    if !row.contains_key(name) {
        row.insert(name.to_owned(), value.clone());
        return;
    }
    let free = (2_u64..).map(|n| format!("{name}_{n}")).find(|name| !row.contains_key(name));
    row.insert(free.expect("there are more numbers than labels"), value.clone());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn recorded(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/data/loki/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        text.split_once("\r\n\r\n").unwrap().1.as_bytes().to_vec()
    }

    fn lines(body: &[u8]) -> Vec<Value> {
        let Ok(Found::Lines(streams)) = read(body) else { panic!("no lines") };
        streams.iter().flat_map(|stream| stream.lines(None).map(|line| stream.row(line).into())).collect()
    }

    fn samples(body: &[u8]) -> Rows {
        let Ok(Found::Samples(samples)) = read(body) else { panic!("no samples") };
        samples.into_rows(&Limits::default())
    }

    #[test]
    fn streams_become_rows_with_their_labels() {
        let rows = lines(&recorded("range_streams"));
        assert_eq!(
            rows,
            [
                json!({"timestamp": "1795342605590908710", "line": "Failed password for \"bob\" from 192.0.2.66\ttab",
                    "app": "sshd", "detected_level": "unknown", "host": "h1", "service_name": "sshd"}),
                json!({"timestamp": "1795342575590908710",
                    "line": "Failed password for root from 192.0.2.66 port 22 ssh2",
                    "app": "sshd", "detected_level": "unknown", "host": "h1", "service_name": "sshd"}),
            ]
        );
        assert_eq!(lines(&recorded("range_json"))[0]["path"], "/é");
        assert!(lines(&recorded("range_streams_empty")).is_empty());
        assert!(lines(br#"{"status":"success","data":{"resultType":"streams","result":null}}"#).is_empty());
    }

    #[test]
    fn labels_that_come_in_categories_are_labels() {
        assert_eq!(
            lines(&recorded("range_categorized")),
            [
                json!({"timestamp": "1795342615590908710", "line": "{\"status\":500,\"path\":\"/é\"}", "app": "nginx",
                "host": "h2", "service_name": "nginx", "detected_level": "unknown", "path": "/é", "status": "500"})
            ]
        );
    }

    #[test]
    fn a_log_that_names_a_field_line_does_not_hide_its_line() {
        let body =
            br#"{"status":"success","data":{"resultType":"streams","result":[{"stream":{"line":"forged",
            "timestamp":"0"},"values":[["5","real",{"line":"again"}]]}]}}"#;
        let told = json!({"timestamp": "5", "line": "real", "line_2": "forged", "timestamp_2": "0",
            "line_3": "again"});
        assert_eq!(lines(body), [told]);
    }

    #[test]
    fn a_matrix_counts_the_last_value_of_each_series() {
        for name in ["range_matrix", "range_matrix_step"] {
            assert_eq!(samples(&recorded(name)).count, 3);
        }
        let rows = samples(&recorded("range_matrix"));
        assert_eq!(rows.rows.len(), 7);
        let last = Value::from(rows.rows[6].clone());
        assert_eq!(last, json!({"timestamp": 1795342640, "value": "1", "host": "h2"}));
        let body = |values: &[&str]| {
            let series = |value| json!({"metric": {"a": value}, "values": [[1, "100"], [2.5, value]]});
            let series: Vec<Value> = values.iter().map(series).collect();
            json!({"status": "success", "data": {"resultType": "matrix", "result": series}}).to_string()
        };
        assert_eq!(samples(body(&["0.5", "0.75", "NaN"]).as_bytes()).count, 1);
        assert_eq!(samples(body(&["-3"]).as_bytes()).count, 0);
        assert_eq!(samples(body(&["+Inf"]).as_bytes()).count, u64::MAX);
        assert!(read(body(&["three"]).as_bytes()).is_err());
    }

    #[test]
    fn vectors_and_scalars_are_numbers_too() {
        let rows = samples(&recorded("instant_vector"));
        assert_eq!((rows.count, rows.rows.len()), (3, 2));
        assert_eq!(
            Value::from(rows.rows[0].clone()),
            json!({"timestamp": 1795342636.768, "value": "2", "host": "h1"})
        );
        let rows = samples(&recorded("instant_scalar"));
        assert_eq!((rows.count, rows.rows.len()), (2, 1));
    }

    #[test]
    fn what_loki_does_not_say_is_refused() {
        for body in [
            "ready\n",
            "",
            "{}",
            r#"{"status":"error","data":{"resultType":"streams","result":[]}}"#,
            r#"{"status":"success","data":{"resultType":"other","result":[]}}"#,
            r#"{"status":"success","data":{"resultType":"streams"}}"#,
            r#"{"status":"success","data":{"resultType":"streams","result":[{"stream":{},"values":[["now","x"]]}]}}"#,
            r#"{"status":"success","data":{"resultType":"streams","result":[{"stream":{},"values":[["5"]]}]}}"#,
        ] {
            assert!(matches!(read(body.as_bytes()), Err(QueryError::Unreadable(_))), "{body}");
        }
    }

    proptest! {
        #[test]
        fn rubbish_is_an_error_and_no_panic(bytes: Vec<u8>, at in 0usize..2_000, byte: u8) {
            assert!(read(&bytes).is_err());
            // Nearly what Loki says.
            let mut body = recorded("range_categorized");
            let place = at % body.len();
            body[place] = byte;
            if let Ok(Found::Lines(streams)) = read(&body) {
                for stream in &streams {
                    stream.lines(Some(0)).for_each(|line| drop(stream.row(line)));
                }
            }
            assert!(read(&body[..place]).is_err());
        }
    }
}
