//! The choice of the next token.

use toktrie::SimpleVob;

use crate::request::Sampling;

/// Chooses tokens; the same calls give the same tokens.
pub(crate) struct Sampler {
    sampling: Sampling,
    penalty: f32,
    random: u64,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling, repetition_penalty: f32) -> Self {
        let random = match sampling {
            Sampling::Greedy => 0,
            Sampling::Seeded { seed, .. } => seed,
        };
        // Below 1 it would reward repetition; not a number would choose nothing.
        Self { sampling, penalty: if repetition_penalty > 1.0 { repetition_penalty } else { 1.0 }, random }
    }

    /// The token to append among those `allowed`, of which there is one at least. `recent` are the words already
    /// said, which are made less likely.
    pub(crate) fn choose(&mut self, logits: &[f32], allowed: &SimpleVob, recent: &[u32]) -> Option<u32> {
        let mut recent: Vec<u32> = if self.penalty > 1.0 { recent.to_vec() } else { Vec::new() };
        recent.sort_unstable();
        let mut recent = recent.into_iter().peekable();
        let is_drawn = matches!(self.sampling, Sampling::Seeded { temperature, .. } if temperature > 0.0);
        let (mut candidates, mut greatest) = (Vec::new(), None::<(f32, u32)>);
        // In the order of their numbers, as `recent` is.
        allowed.iter_set_entries(|id| {
            if let Some(&logit) = logits.get(id) {
                let id = id as u32;
                while recent.next_if(|said| *said < id).is_some() {}
                let logit = match recent.peek() == Some(&id) {
                    true if logit > 0.0 => logit / self.penalty,
                    true => logit * self.penalty,
                    false => logit,
                };
                if greatest.is_none_or(|(best, _)| logit > best) {
                    greatest = Some((logit, id));
                }
                if is_drawn {
                    candidates.push((logit, id));
                }
            }
        });
        let greatest = greatest?;
        match self.sampling {
            Sampling::Seeded { temperature, .. } if is_drawn => {
                Some(self.draw(&candidates, greatest, temperature))
            }
            _ => Some(greatest.1),
        }
    }

    fn draw(&mut self, candidates: &[(f32, u32)], greatest: (f32, u32), temperature: f32) -> u32 {
        let weight = |logit: f32| f64::from((logit - greatest.0) / temperature).exp();
        let total: f64 = candidates.iter().map(|(logit, _)| weight(*logit)).sum();
        let mut left = self.uniform() * total;
        for &(logit, id) in candidates {
            left -= weight(logit);
            if left < 0.0 {
                return id;
            }
        }
        greatest.1
    }

    /// 0 to 1, by SplitMix64.
    fn uniform(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.random;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(n: usize) -> SimpleVob {
        let mut allowed = SimpleVob::alloc(n);
        (0..n).for_each(|id| allowed.allow_token(id as u32));
        allowed
    }

    #[test]
    fn greedy_takes_the_first_of_equals_and_nothing_forbidden() {
        let mut sampler = Sampler::new(Sampling::Greedy, 1.0);
        assert_eq!(sampler.choose(&[1.0, 3.0, 3.0], &all(3), &[]), Some(1));
        let mut allowed = all(3);
        allowed.disallow_token(1);
        allowed.disallow_token(2);
        assert_eq!(sampler.choose(&[1.0, 3.0, 3.0], &allowed, &[]), Some(0));
    }

    #[test]
    fn a_repeated_word_gives_way_to_a_close_rival() {
        let mut sampler = Sampler::new(Sampling::Greedy, 1.1);
        assert_eq!(sampler.choose(&[2.0, 2.1], &all(2), &[1]), Some(0));
        assert_eq!(sampler.choose(&[-2.1, -2.0], &all(2), &[1]), Some(0));
        assert_eq!(sampler.choose(&[1.0, 2.1], &all(2), &[1]), Some(1));
        assert_eq!(sampler.choose(&[2.1, 2.0, 2.1, 0.0], &all(4), &[2, 3, 0, 2]), Some(1));
    }

    #[test]
    fn a_seed_repeats_itself_and_seeds_differ() {
        let draws = |seed| {
            let mut sampler = Sampler::new(Sampling::Seeded { seed, temperature: 1.0 }, 1.0);
            (0..64).map(|_| sampler.choose(&[0.0, 0.5, 1.0], &all(3), &[]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        assert!([0, 1, 2].iter().all(|id| draws(1).contains(id)));
    }
}
