//! Attention of some queries over keys and values that lie in several places.

use std::ops::Range;

use super::kernel::{Halves, Lanes, Plain};
use super::lanes::{exp, sum};

/// Attention of some queries of one key-value head, each at its own position.
///
/// A query's result does not depend on the queries computed with it. It does depend, in the last bit, on where one span
/// ends and the next begins.
pub(crate) struct Attend<'a> {
    /// `[query][head_dim]`, already scaled.
    pub(crate) queries: &'a [f32],
    /// The positions that each query sees: at least one; both ends rise from query to query.
    pub(crate) visible: &'a [Range<usize>],
    /// Where the positions from 0 lie, in order.
    pub(crate) spans: &'a [Span<'a>],
    pub(crate) head_dim: usize,
    /// At least [`Attend::AT_ONCE`] times [`Span::slots`] of all spans together.
    pub(crate) scratch: &'a mut [f32],
    /// `[query][head_dim]`.
    pub(crate) output: &'a mut [f32],
}

/// Keys and values of consecutive positions, of one head, in half precision.
#[derive(Clone, Copy)]
pub(crate) struct Span<'a> {
    /// `[position / 16][head_dim][16]`.
    pub(crate) keys: &'a [u16],
    /// `[position][head_dim]`; finite, also where there is no position, up to a multiple of 16.
    pub(crate) values: &'a [u16],
    /// Positions; the last tile of 16 may have fewer.
    pub(crate) len: usize,
}

impl Span<'_> {
    /// Places for scores: a position's, rounded up to whole tiles.
    pub(crate) fn slots(&self) -> usize {
        self.len.next_multiple_of(16)
    }
}

/// 16 positions of a span that some query sees.
#[derive(Clone, Copy)]
struct Tile<'a> {
    span: Span<'a>,
    /// Within the span.
    number: usize,
    /// Of its first position, among all spans.
    position: usize,
    /// Positions of it that exist.
    len: usize,
}

impl<'a> Tile<'a> {
    /// Of its numbers in `numbers`, keys or values, `columns` sixteens from the `part`th on.
    #[inline(always)]
    fn part(&self, numbers: &'a [u16], dim: usize, part: usize, columns: usize) -> &'a [u16] {
        &numbers[(self.number * dim + part) * 16..][..columns * 16]
    }
}

impl Lanes for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        self.run_with(Plain::<FMA>);
    }

    #[inline(always)]
    fn run_with<H: Halves>(mut self, halves: H) {
        let (mut at, count) = (0, self.visible.len());
        while at < count {
            at += match count - at {
                8.. => self.some::<H, 8, 2>(halves, at),
                4.. => self.some::<H, 4, 4>(halves, at),
                3 => self.some::<H, 3, 4>(halves, at),
                2 => self.some::<H, 2, 4>(halves, at),
                _ => self.some::<H, 1, 4>(halves, at),
            };
        }
    }
}

impl Attend<'_> {
    /// Queries that share the reading of keys and values.
    pub(crate) const AT_ONCE: usize = 8;

    /// Whether so many queries wait for memory: then keys and values are asked for before they are needed.
    #[inline(always)]
    const fn waits(queries: usize) -> bool {
        queries < Self::AT_ONCE
    }

    /// The queries from `at`. Keys that only some of them see weigh nothing for the others. `T`: how many sums of a query are
    /// made side by side, so that they need not wait for each other.
    #[inline(always)]
    fn some<H: Halves, const N: usize, const T: usize>(&mut self, halves: H, at: usize) -> usize {
        let dim = self.head_dim;
        let visible: [Range<usize>; N] = std::array::from_fn(|n| self.visible[at + n].clone());
        let tiles: Vec<Tile<'_>> = tiles(self.spans, visible[0].start..visible[N - 1].end).collect();
        let stride = 16 * tiles.len();

        let whole = tiles.len() / T * T;
        for number in (0..whole).step_by(T) {
            self.scores::<H, N, T>(halves, at, &tiles, number);
        }
        for number in whole..tiles.len() {
            self.scores::<H, N, 1>(halves, at, &tiles, number);
        }

        if Self::waits(N) {
            ask_for_values(halves, tiles.iter().take(AHEAD), dim);
        }
        let mut scales = [0f32; N];
        for n in 0..N {
            let scores = &mut self.scratch[n * stride..][..stride];
            hide(scores, &tiles, visible[n].clone());
            scales[n] = if H::FMA { softmax::<true>(scores) } else { softmax::<false>(scores) };
        }

        let whole = dim / (16 * T) * (16 * T);
        for part in (0..whole).step_by(16 * T) {
            self.values::<H, N, T>(halves, at, &tiles, part, &scales);
        }
        for part in (whole..dim).step_by(16) {
            self.values::<H, N, 1>(halves, at, &tiles, part, &scales);
        }
        N
    }

    /// The products of some queries and the keys of `T` tiles of `tiles`, from the `number`th on.
    #[inline(always)]
    fn scores<H: Halves, const N: usize, const T: usize>(
        &mut self,
        halves: H,
        at: usize,
        tiles: &[Tile<'_>],
        number: usize,
    ) {
        let (dim, stride) = (self.head_dim, 16 * tiles.len());
        let (tiles, later) = tiles[number..].split_at(T);
        let mut sums = [[[0f32; 16]; T]; N];
        let columns = if Self::waits(N) { 16 } else { dim };
        for part in (0..dim).step_by(columns) {
            let queries: [&[f32]; N] =
                std::array::from_fn(|n| &self.queries[(at + n) * dim + part..][..columns]);
            let keys: [&[u16]; T] =
                std::array::from_fn(|t| tiles[t].part(tiles[t].span.keys, dim, part, columns));
            halves.add(&mut sums, queries, keys, 16);
            if Self::waits(N) {
                for tile in later.iter().take(T) {
                    halves.ask(tile.part(tile.span.keys, dim, part, columns));
                }
            }
        }
        for (n, sums) in sums.iter().enumerate() {
            for (t, sums) in sums.iter().enumerate() {
                self.scratch[n * stride + (number + t) * 16..][..16].copy_from_slice(sums);
            }
        }
    }

    /// What some queries see of `16 * T` numbers of each value, from `part` on.
    #[inline(always)]
    fn values<H: Halves, const N: usize, const T: usize>(
        &mut self,
        halves: H,
        at: usize,
        tiles: &[Tile<'_>],
        part: usize,
        scales: &[f32; N],
    ) {
        let (dim, stride) = (self.head_dim, 16 * tiles.len());
        let mut sums = [[[0f32; 16]; T]; N];
        for (slot, tile) in tiles.iter().enumerate() {
            if Self::waits(N) && part == 0 {
                ask_for_values(halves, tiles.get(slot + AHEAD), dim);
            }
            let weights: [&[f32]; N] =
                std::array::from_fn(|n| &self.scratch[n * stride + slot * 16..][..tile.len]);
            let values: [&[u16]; T] =
                std::array::from_fn(|t| &tile.span.values[tile.number * 16 * dim + part + 16 * t..]);
            halves.add(&mut sums, weights, values, dim);
        }
        for n in 0..N {
            let output = &mut self.output[(at + n) * dim + part..][..16 * T];
            for (output, sums) in output.as_chunks_mut::<16>().0.iter_mut().zip(&sums[n]) {
                for i in 0..16 {
                    output[i] = sums[i] * scales[n];
                }
            }
        }
    }
}

#[inline(always)]
fn ask_for_values<'a, H: Halves>(halves: H, tiles: impl IntoIterator<Item = &'a Tile<'a>>, dim: usize) {
    for tile in tiles {
        halves.ask(tile.part(tile.span.values, dim, 0, dim));
    }
}

/// The scores of positions that a query does not see, or that do not exist, become minus infinity.
#[inline(always)]
fn hide(scores: &mut [f32], tiles: &[Tile<'_>], visible: Range<usize>) {
    for (scores, tile) in scores.as_chunks_mut::<16>().0.iter_mut().zip(tiles) {
        let Range { start, end } = visible;
        if tile.position < start || tile.position + 16 > end.min(tile.position + tile.len) {
            for (i, score) in scores.iter_mut().enumerate() {
                if i >= tile.len || !(start..end).contains(&(tile.position + i)) {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
    }
}

/// The tiles that hold the positions `seen`.
#[inline(always)]
fn tiles<'a>(spans: &'a [Span<'a>], seen: Range<usize>) -> impl Iterator<Item = Tile<'a>> {
    let mut before = 0;
    spans.iter().flat_map(move |span| {
        let start = before;
        before += span.len;
        let from = seen.start.saturating_sub(start).min(span.len);
        let to = seen.end.saturating_sub(start).min(span.len);
        (from / 16..if from < to { to.div_ceil(16) } else { from / 16 }).map(move |number| Tile {
            span: *span,
            number,
            position: start + number * 16,
            len: (span.len - number * 16).min(16),
        })
    })
}

/// Turns scores into weights, and gives what to divide their sum by, as a factor.
#[inline(always)]
fn softmax<const FMA: bool>(scores: &mut [f32]) -> f32 {
    let (chunks, _) = scores.as_chunks_mut::<16>();
    let mut largest = [f32::NEG_INFINITY; 16];
    for chunk in chunks.iter() {
        for i in 0..16 {
            largest[i] = if chunk[i] > largest[i] { chunk[i] } else { largest[i] };
        }
    }
    let largest = largest.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let mut total = [0f32; 16];
    for chunk in chunks {
        for i in 0..16 {
            // What a query does not see is at minus infinity: `exp` would make it very small, not nothing.
            let weight = exp::<FMA>(chunk[i] - largest);
            chunk[i] = if chunk[i] == f32::NEG_INFINITY { 0.0 } else { weight };
            total[i] += chunk[i];
        }
    }
    1.0 / sum(total)
}

/// How many tiles ahead values are asked for. Measured: 1 and 4 are about as fast.
const AHEAD: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::kernel::Isa;
    use crate::network::lanes::tests::noise;

    const DIM: usize = 32;

    fn half(x: f32) -> half::f16 {
        half::f16::from_f32(x)
    }

    /// Keys in tiles, and values, of the positions `range`.
    fn stored(range: Range<usize>, keys: &[f32], values: &[f32]) -> (Vec<u16>, Vec<u16>) {
        let capacity = range.len().next_multiple_of(16);
        let (mut tiled, mut plain) = (vec![0; capacity * DIM], vec![0; capacity * DIM]);
        for (i, position) in range.enumerate() {
            for d in 0..DIM {
                tiled[(i / 16 * DIM + d) * 16 + i % 16] = half(keys[position * DIM + d]).to_bits();
                plain[i * DIM + d] = half(values[position * DIM + d]).to_bits();
            }
        }
        (tiled, plain)
    }

    #[test]
    fn attention_is_that_of_the_textbook_over_one_place_or_several() {
        let (keys, values) = (noise(48 * DIM, 2), noise(48 * DIM, 3));
        let visible = [0..1, 0..7, 0..7, 2..16, 5..17, 5..40, 20..41, 33..45];
        let queries = noise(visible.len() * DIM, 4);
        for cuts in [&[0, 48][..], &[0, 5, 24, 48], &[0, 16, 17, 48]] {
            let cut = |cut: &[usize]| (stored(cut[0]..cut[1], &keys, &values), cut[1] - cut[0]);
            let parts: Vec<_> = cuts.windows(2).map(cut).collect();
            let spans: Vec<_> =
                parts.iter().map(|((keys, values), len)| Span { keys, values, len: *len }).collect();
            let slots: usize = spans.iter().map(Span::slots).sum();
            for isa in Isa::supported() {
                let run = |visible: &[Range<usize>], queries: &[f32]| {
                    let (mut output, mut scratch) =
                        (vec![0.0; queries.len()], vec![f32::NAN; Attend::AT_ONCE * slots]);
                    let (scratch, output_slice) = (&mut scratch[..], &mut output[..]);
                    isa.run(Attend {
                        queries,
                        visible,
                        spans: &spans,
                        head_dim: DIM,
                        scratch,
                        output: output_slice,
                    });
                    output
                };
                let together = run(&visible, &queries);
                for (n, visible) in visible.iter().enumerate() {
                    let query = &queries[n * DIM..][..DIM];
                    let dot = |p: usize, d: usize| f64::from(query[d]) * half(keys[p * DIM + d]).to_f64();
                    let weights: Vec<f64> =
                        visible.clone().map(|p| (0..DIM).map(|d| dot(p, d)).sum::<f64>().exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for d in 0..DIM {
                        let value = |p: usize| half(values[p * DIM + d]).to_f64();
                        let exact: f64 =
                            visible.clone().zip(&weights).map(|(p, weight)| weight / total * value(p)).sum();
                        let got = f64::from(together[n * DIM + d]);
                        assert!((got - exact).abs() < 2e-6, "{} {cuts:?} {visible:?}", isa.name());
                    }
                    let alone = run(std::slice::from_ref(visible), query);
                    assert_eq!(alone, together[n * DIM..][..DIM], "alone or together, the same bits");
                }
            }
        }
    }
}
