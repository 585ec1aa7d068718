//! Attention of some queries over keys and values that lie in several places.

use std::ops::Range;

use super::kernel::Lanes;
use super::lanes::{exp, multiply_add, sum};
use super::packed::f16_to_f32;

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

impl Lanes for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        let (mut at, count) = (0, self.visible.len());
        while at < count {
            at += match count - at {
                8.. => self.some::<FMA, 8>(at),
                4.. => self.some::<FMA, 4>(at),
                3 => self.some::<FMA, 3>(at),
                2 => self.some::<FMA, 2>(at),
                _ => self.some::<FMA, 1>(at),
            };
        }
    }
}

impl<'a> Attend<'a> {
    /// Queries that share the reading of keys and values.
    pub(crate) const AT_ONCE: usize = 8;

    /// The queries from `at`. Keys that only some of them see weigh nothing for the others.
    #[inline(always)]
    fn some<const FMA: bool, const N: usize>(&mut self, at: usize) -> usize {
        let dim = self.head_dim;
        let visible: [Range<usize>; N] = std::array::from_fn(|n| self.visible[at + n].clone());
        let queries: [&[f32]; N] = std::array::from_fn(|n| &self.queries[(at + n) * dim..][..dim]);
        let seen = visible[0].start..visible[N - 1].end;
        let stride = 16 * tiles(self.spans, seen.clone()).count();

        for (slot, tile) in tiles(self.spans, seen.clone()).enumerate() {
            let mut scores = [[0f32; 16]; N];
            let keys = &tile.span.keys[tile.number * 16 * dim..][..16 * dim];
            for (d, keys) in keys.as_chunks::<16>().0.iter().enumerate() {
                let keys: [f32; 16] = std::array::from_fn(|i| f16_to_f32(keys[i]));
                for n in 0..N {
                    let query = queries[n][d];
                    for i in 0..16 {
                        scores[n][i] = multiply_add::<FMA>(query, keys[i], scores[n][i]);
                    }
                }
            }
            for (n, scores) in scores.iter_mut().enumerate() {
                let Range { start, end } = visible[n].clone();
                if tile.position < start || tile.position + 16 > end.min(tile.position + tile.len) {
                    for (i, score) in scores.iter_mut().enumerate() {
                        if i >= tile.len || !(start..end).contains(&(tile.position + i)) {
                            *score = f32::NEG_INFINITY;
                        }
                    }
                }
                self.scratch[n * stride + slot * 16..][..16].copy_from_slice(scores);
            }
        }

        let mut scales = [0f32; N];
        for (n, scale) in scales.iter_mut().enumerate() {
            *scale = softmax::<FMA>(&mut self.scratch[n * stride..][..stride]);
        }

        for part in (0..dim).step_by(16) {
            let mut sums = [[0f32; 16]; N];
            for (slot, tile) in tiles(self.spans, seen.clone()).enumerate() {
                for i in 0..tile.len {
                    let values = &tile.span.values[(tile.number * 16 + i) * dim + part..][..16];
                    let values: [f32; 16] = std::array::from_fn(|i| f16_to_f32(values[i]));
                    for (n, sums) in sums.iter_mut().enumerate() {
                        let weight = self.scratch[n * stride + slot * 16 + i];
                        for i in 0..16 {
                            sums[i] = multiply_add::<FMA>(weight, values[i], sums[i]);
                        }
                    }
                }
            }
            for n in 0..N {
                let output = &mut self.output[(at + n) * dim + part..][..16];
                for i in 0..16 {
                    output[i] = sums[n][i] * scales[n];
                }
            }
        }
        N
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
