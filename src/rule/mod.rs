//! Rules: what to search for, and when a result is an alert.

mod glob;
pub mod load;
mod python;
mod scan;
pub mod template;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::{Map, Value};

/// A rule as its file says it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub id: String,
    pub name: String,
    pub level: Level,
    pub size: Size,
    pub active: bool,
    /// The query, a Jinja template.
    pub rule: String,
    pub author: Vec<String>,
    pub group: String,
    pub tags: Vec<String>,
    /// A Jinja template too.
    pub description: String,
    /// The operator's own values, `{{ data.threshold }}` in templates.
    pub data: Value,
    /// Columns that attackers can write, whatever their names.
    pub tainted: Vec<String>,
    /// Columns, by their whole paths, that attackers cannot write.
    pub clean: Vec<String>,
    /// Name of the datasource; `None` is the detector's.
    pub datasource: Option<String>,
    pub path: PathBuf,
}

impl Rule {
    /// The fields in clickdetect's shape, as templates see them and alerts carry them; `tainted` and `clean`, which
    /// it does not know, where they name a column.
    pub fn to_map(&self) -> Map<String, Value> {
        let fields = [
            ("id", self.id.as_str().into()),
            ("name", self.name.as_str().into()),
            ("level", self.level.get().into()),
            ("size", self.size.to_string().into()),
            ("active", self.active.into()),
            ("rule", self.rule.as_str().into()),
            ("author", self.author.as_slice().into()),
            ("group", self.group.as_str().into()),
            ("tags", self.tags.as_slice().into()),
            ("data", self.data.clone()),
            ("description", self.description.as_str().into()),
            // The detector's own values, once it fires.
            ("detector", Value::Null),
            ("path", self.path.to_string_lossy().into()),
            ("sigma", false.into()),
        ];
        let lists = [("tainted", &self.tainted), ("clean", &self.clean)];
        let ours = lists.into_iter().filter(|(_, columns)| !columns.is_empty());
        let ours = ours.map(|(name, columns)| (name, columns.as_slice().into()));
        fields.into_iter().chain(ours).map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// How bad it would be, 0-100. The Sigma words are 10, 30, 50, 75 and 90.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(u8);

impl Level {
    /// `None` above 100.
    pub fn new(level: u64) -> Option<Self> {
        u8::try_from(level).ok().filter(|level| *level <= 100).map(Self)
    }

    pub fn get(self) -> u8 {
        self.0
    }
}

impl FromStr for Level {
    type Err = ();

    /// A number of 0-100 or a Sigma word, in any case.
    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.trim().to_ascii_lowercase();
        let level = match text.as_str() {
            "informational" => 10,
            "low" => 30,
            "medium" => 50,
            "high" => 75,
            "critical" => 90,
            number => number.parse().map_err(|_| ())?,
        };
        Self::new(level).ok_or(())
    }
}

/// The row count at which a rule fires, e.g. `>=10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    op: Op,
    rows: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    More,
    AtLeast,
    Fewer,
    AtMost,
    Exactly,
}

impl Size {
    pub fn holds(self, count: u64) -> bool {
        match self.op {
            Op::More => count > self.rows,
            Op::AtLeast => count >= self.rows,
            Op::Fewer => count < self.rows,
            Op::AtMost => count <= self.rows,
            Op::Exactly => count == self.rows,
        }
    }
}

impl Default for Size {
    fn default() -> Self {
        Self { op: Op::More, rows: 0 }
    }
}

impl FromStr for Size {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.trim();
        let ops =
            [(">=", Op::AtLeast), ("<=", Op::AtMost), ("==", Op::Exactly), (">", Op::More), ("<", Op::Fewer)];
        let (op, rows) =
            ops.into_iter().find_map(|(sign, op)| text.strip_prefix(sign).map(|rest| (op, rest))).ok_or(())?;
        let rows = rows.trim_start();
        if !rows.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(());
        }
        Ok(Self { op, rows: rows.parse().map_err(|_| ())? })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.op {
            Op::More => ">",
            Op::AtLeast => ">=",
            Op::Fewer => "<",
            Op::AtMost => "<=",
            Op::Exactly => "==",
        };
        write!(f, "{sign}{}", self.rows)
    }
}
