//! The body of a good answer for a parser that reads: it parses on a thread of its own while the pieces come, so that an
//! answer costs memory for what is kept of it and not for itself.

use std::cell::Cell;
use std::io::{self, BufReader, Read};
use std::rc::Rc;

use bytes::{Buf as _, Bytes};
use serde::de::DeserializeSeed;
use tokio::sync::mpsc;

use super::web::Body;
use super::{QueryError, bounded};

/// Gives `body` to `parse` as it comes. What breaks off, or is not there in time, is an error whatever `parse` made of
/// its beginning.
pub(super) async fn parsed<T: Send + 'static>(
    mut body: Body,
    parse: impl FnOnce(Feed) -> Result<T, QueryError> + Send + 'static,
) -> Result<T, QueryError> {
    let (sender, pieces) = mpsc::channel(PIECES);
    let thread = tokio::task::spawn_blocking(move || parse(Feed { pieces, piece: Bytes::new() }));
    while let Some(piece) = body.piece().await? {
        // Nobody reads on: the parser has found what is wrong and tells below.
        if sender.send(piece).await.is_err() {
            break;
        }
    }
    drop(sender);
    thread.await.map_err(|error| QueryError::Unreadable(format!("reading it failed inside: {error}")))?
}

/// The one JSON value of `source`, as `seed` reads it with the allowance that it is given.
pub(super) fn json<S, T>(source: impl Read, seed: impl FnOnce(Allowance) -> S) -> Result<T, QueryError>
where
    S: for<'de> DeserializeSeed<'de, Value = T>,
{
    let allowance = Allowance(Rc::new(Cell::new(MAX_PART_BYTES)));
    let source = BufReader::new(Metered { source, allowance: allowance.clone() });
    let mut deserializer = serde_json::Deserializer::from_reader(source);
    seed(allowance)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| unreadable(&error))
}

fn unreadable(error: &serde_json::Error) -> QueryError {
    match error.is_io() {
        // The only one that a feed has.
        true => QueryError::Refused(format!(
            "a row of the answer has more than {MAX_PART_BYTES} bytes: let the query return less"
        )),
        false => QueryError::Unreadable(bounded(&error.to_string())),
    }
}

/// What has come of a body, and then waits for more.
pub(super) struct Feed {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// How many bytes may come before the parser is done with a row: what it holds at one time.
#[derive(Clone)]
pub(super) struct Allowance(Rc<Cell<usize>>);

impl Allowance {
    /// A row was taken, and what it was made of is free again.
    pub(super) fn renew(&self) {
        self.0.set(MAX_PART_BYTES);
    }
}

struct Metered<R> {
    source: R,
    allowance: Allowance,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        let left = self.allowance.0.get().checked_sub(length);
        self.allowance.0.set(left.ok_or_else(|| io::Error::other("more than allowed"))?);
        Ok(length)
    }
}

/// Pieces of at most some 100 kB that wait for the parser.
const PIECES: usize = 4;
const MAX_PART_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::{SeqAccess, Visitor};
    use std::marker::PhantomData;

    /// Counts the texts of a list; renews after each.
    struct Counted(Allowance);

    impl<'de> DeserializeSeed<'de> for Counted {
        type Value = usize;

        fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
            deserializer.deserialize_seq(self)
        }
    }

    impl<'de> Visitor<'de> for Counted {
        type Value = usize;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<usize, A::Error> {
            let mut count = 0;
            while list.next_element::<String>()?.is_some() {
                count += 1;
                self.0.renew();
            }
            Ok(count)
        }
    }

    #[test]
    fn an_answer_may_be_long_and_none_of_its_rows() {
        let row = format!("\"{}\"", "x".repeat(MAX_PART_BYTES / 4));
        let many = format!("[{}]", [row.as_str(); 8].join(","));
        assert_eq!(json(many.as_bytes(), Counted).unwrap(), 8);
        let long = format!("[\"{}\"]", "x".repeat(MAX_PART_BYTES + 1));
        let error = json(long.as_bytes(), Counted).unwrap_err();
        assert!(matches!(&error, QueryError::Refused(text) if text.contains("67108864 bytes")), "{error}");
    }

    #[test]
    fn what_stands_behind_the_value_makes_it_unreadable() {
        for rubbish in ["", "[", "[\"a\"", "[\"a\"] x", "<html>", "{}"] {
            let error = json(rubbish.as_bytes(), Counted).unwrap_err();
            assert!(matches!(error, QueryError::Unreadable(_)), "{rubbish}: {error}");
        }
        let seed = |_| PhantomData::<serde::de::IgnoredAny>;
        assert!(json(&b" {\"a\": [1]} \n"[..], seed).is_ok());
    }
}
