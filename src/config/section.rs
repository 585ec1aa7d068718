//! One declaration of a section makes its struct, its reader, its defaults and its reference table.

use std::path::Path;

use super::yaml::{Node, Position};
use super::{Field, FromYaml, Reader};

/// A section of which nothing is written: every field has its default.
///
/// Panics where a field is required; used for sections that have none.
pub fn defaults<T: FromYaml>() -> T {
    let mut reader = Reader::new("", "", Path::new(""), None);
    T::from_yaml(&Node::default_of("{}", Position::default()), &mut reader)
        .expect("every field has a default")
}

/// How many fields there are in all.
pub(crate) const fn count_fields(parts: &[&[Field]]) -> usize {
    let (mut count, mut part) = (0, 0);
    while part < parts.len() {
        count += parts[part].len();
        part += 1;
    }
    count
}

/// The fields of all `parts`, which are `N` and of which the first part has one. (Constants know no iterators.)
pub(crate) const fn join_fields<const N: usize>(parts: &[&[Field]]) -> [Field; N] {
    let mut all = [parts[0][0]; N];
    let (mut at, mut part) = (0, 0);
    while part < parts.len() {
        let mut field = 0;
        while field < parts[part].len() {
            all[at] = parts[part][field];
            at += 1;
            field += 1;
        }
        part += 1;
    }
    all
}

/// Declares a configuration section.
///
/// ```ignore
/// section! {
///     /// An HTTP receiver.
///     pub struct Config {
///         /// Where alerts are posted, e.g. `https://soc.example/alerts`.
///         pub url: Url,                                 // required: no default, not an Option
///         /// For the whole exchange.
///         pub timeout: Duration = "10s",                // a default, as it would be written
///         /// How often.
///         #[read(interval)]                             // read by this function instead of `FromYaml`
///         #[schema(schema::duration())]                 // and what a JSON schema says then, where that differs
///         pub interval: Duration as "for",              // another key than the field's name
///         pub template: Option<String>,
///     }
///     shared { pub exchange: Exchange }                 // sections whose keys stand among ours, after them
///     refused { "proxy", "ca_cert" => "is not built yet" }
/// }
/// ```
///
/// Doc comments are the operator's reference.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $(#[read($read:path)])?
                $(#[schema($schema:expr)])?
                $field_vis:vis $field:ident : $type:ty $(as $key:literal)? $(= $default:literal)?
            ),* $(,)?
        }
        $(shared { $($shared_vis:vis $shared:ident : $shared_type:ty),* $(,)? })?
        $(refused { $($refused:literal),* => $why:literal })*
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $name {
            $( $(#[doc = $doc])* $field_vis $field: $type, )*
            $($( $shared_vis $shared: $shared_type, )*)?
        }

        impl $crate::config::Section for $name {
            const ABOUT: &'static str = concat!($($about, "\n"),*);
            const FIELDS: &'static [$crate::config::Field] = {
                const OWN: &[$crate::config::Field] = &[$(
                    $crate::config::Field {
                        name: $crate::config::section!(@key $field $($key)?),
                        kind: <$type as $crate::config::FromYaml>::TYPE,
                        required: !<$type as $crate::config::FromYaml>::OPTIONAL
                            && $crate::config::section!(@default $($default)?).is_none(),
                        default: $crate::config::section!(@default $($default)?),
                        doc: concat!($($doc, "\n"),*),
                        inside: <$type as $crate::config::FromYaml>::INSIDE,
                        schema: $crate::config::section!(@schema $type $(, $schema)?),
                    },
                )*];
                const ALL: &[&[$crate::config::Field]] =
                    &[OWN $($(, <$shared_type as $crate::config::Section>::FIELDS)*)?];
                const COUNT: usize = $crate::config::count_fields(ALL);
                &$crate::config::join_fields::<COUNT>(ALL)
            };
            const REFUSED: &'static [(&'static str, &'static str)] = &[$($( ($refused, $why), )*)*];

            fn from_entries(
                entries: &[$crate::config::yaml::Entry],
                node: &$crate::config::yaml::Node,
                reader: &mut $crate::config::Reader<'_>,
            ) -> Option<Self> {
                let mut fields = <Self as $crate::config::Section>::FIELDS.iter();
                // Every field is read before the first failed one ends the reading.
                $(
                    let $field: Option<$type> = reader.field(
                        entries,
                        node,
                        fields.next().expect("the table has a row for each field"),
                        $crate::config::section!(@read $type $(, $read)?),
                    );
                )*
                $($(
                    let $shared = <$shared_type as $crate::config::Section>::from_entries(entries, node, reader);
                )*)?
                Some(Self { $( $field: $field?, )* $($( $shared: $shared?, )*)? })
            }
        }

        impl $crate::config::FromYaml for $name {
            const TYPE: &'static str = "section";
            const INSIDE: &'static [$crate::config::Field] = <Self as $crate::config::Section>::FIELDS;

            fn schema() -> serde_json::Value {
                $crate::config::schema::of_section::<Self>()
            }

            fn from_yaml(
                node: &$crate::config::yaml::Node,
                reader: &mut $crate::config::Reader<'_>,
            ) -> Option<Self> {
                use $crate::config::Section;
                let entries = reader.section(node, Self::FIELDS, Self::REFUSED)?;
                Self::from_entries(entries, node, reader)
            }

            fn to_json(&self) -> serde_json::Value {
                let mut map = serde_json::Map::new();
                $(
                    map.insert(
                        $crate::config::section!(@key $field $($key)?).to_owned(),
                        $crate::config::FromYaml::to_json(&self.$field),
                    );
                )*
                $($(
                    if let serde_json::Value::Object(shared) = $crate::config::FromYaml::to_json(&self.$shared) {
                        map.extend(shared);
                    }
                )*)?
                map.into()
            }
        }
    };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    (@default) => { None::<&'static str> };
    (@default $default:literal) => { Some($default) };
    (@read $type:ty) => { <$type as $crate::config::FromYaml>::from_yaml };
    (@read $type:ty, $read:path) => { $read };
    (@schema $type:ty) => { <$type as $crate::config::FromYaml>::schema };
    (@schema $type:ty, $schema:expr) => { || $schema };
}

/// Declares a family's configuration: one variant a kind, tagged by `type` in the file. The only list of kinds.
macro_rules! kinds {
    (
        $(#[doc = $about:literal])*
        $vis:vis enum $name:ident : $family:literal {
            $( $variant:ident($config:ty) = $kind:literal ),* $(,)?
        }
        default $default:literal
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        $vis enum $name {
            $( $variant($config), )*
        }

        impl $name {
            /// Every kind, in the order of reference pages.
            pub const KINDS: &'static [$crate::config::Kind] = &[$(
                $crate::config::Kind {
                    name: $kind,
                    about: <$config as $crate::config::Section>::ABOUT,
                    fields: <$config as $crate::config::Section>::FIELDS,
                    refused: <$config as $crate::config::Section>::REFUSED,
                },
            )*];

            /// Everything that is known of the family.
            pub const TABLE: $crate::config::KindTable = $crate::config::KindTable {
                family: $family,
                about: concat!($($about, "\n"),*),
                kinds: Self::KINDS,
                default: $default,
            };

            /// The family in a JSON schema, which [`FromYaml::schema`](crate::config::FromYaml::schema) refers to.
            pub fn definition() -> serde_json::Value {
                $crate::config::schema::kinds(&Self::TABLE)
            }

            /// The kind's name, as `type` says it.
            pub fn kind(&self) -> &'static str {
                match self { $( Self::$variant(_) => $kind, )* }
            }
        }

        impl $crate::config::FromYaml for $name {
            const TYPE: &'static str = $family;

            fn schema() -> serde_json::Value {
                serde_json::json!({ "$ref": concat!("#/$defs/", $family) })
            }

            fn from_yaml(
                node: &$crate::config::yaml::Node,
                reader: &mut $crate::config::Reader<'_>,
            ) -> Option<Self> {
                let (kind, settings) = Self::TABLE.choose(node, reader)?;
                match kind {
                    $( $kind => <$config as $crate::config::FromYaml>::from_yaml(&settings, reader).map(Self::$variant), )*
                    _ => None,
                }
            }

            fn to_json(&self) -> serde_json::Value {
                let (kind, settings) = match self {
                    $( Self::$variant(config) => ($kind, $crate::config::FromYaml::to_json(config)), )*
                };
                $crate::config::tagged(kind, settings)
            }
        }
    };
}

/// Declares a value that is one of some words.
///
/// ```ignore
/// words! {
///     /// How it is written.
///     pub enum Format: "a format" {            // as a message calls it
///         Text = "text",
///         Json = "json",
///     }
/// }
/// ```
macro_rules! words {
    (
        $(#[doc = $about:literal])*
        $vis:vis enum $name:ident : $noun:literal {
            $(#[doc = $first_doc:literal])*
            $first:ident = $first_word:literal
            $(, $(#[doc = $doc:literal])* $variant:ident = $word:literal )* $(,)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $(#[doc = $first_doc])*
            $first,
            $( $(#[doc = $doc])* $variant, )*
        }

        impl $name {
            const WORDS: &'static [&'static str] = &[$first_word $(, $word)*];

            /// As a file says it.
            pub fn word(self) -> &'static str {
                match self {
                    Self::$first => $first_word,
                    $( Self::$variant => $word, )*
                }
            }
        }

        impl $crate::config::FromYaml for $name {
            const TYPE: &'static str = concat!($first_word $(, " | ", $word)*);

            fn schema() -> serde_json::Value {
                $crate::config::schema::words(Self::WORDS)
            }

            fn from_yaml(
                node: &$crate::config::yaml::Node,
                reader: &mut $crate::config::Reader<'_>,
            ) -> Option<Self> {
                match <String as $crate::config::FromYaml>::from_yaml(node, reader)?.as_str() {
                    $first_word => Some(Self::$first),
                    $( $word => Some(Self::$variant), )*
                    _ => {
                        let words = $crate::config::either(Self::WORDS);
                        reader.refuse(node, &format!("{}: write {words}", $noun))
                    }
                }
            }

            fn to_json(&self) -> serde_json::Value {
                self.word().into()
            }
        }
    };
}

pub(crate) use {kinds, section, words};
