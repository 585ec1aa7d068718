//! Mixtures of experts: which feed-forward parts each token goes through, and how much each of them counts.

/// The tokens of a pass that go through one expert.
#[derive(Debug, PartialEq)]
pub(super) struct Group {
    pub(super) expert: usize,
    /// Of the pass, rising.
    pub(super) rows: Vec<usize>,
    /// By how much the expert's output counts for each row; those of a row add up to 1.
    pub(super) shares: Vec<f32>,
}

/// `logits`: `[row][expert]` of the router. Each row goes through the `used` experts whose logits are the greatest; a row's
/// choice does not depend on the rows around it.
pub(super) fn groups(logits: &[f32], experts: usize, used: usize) -> Vec<Group> {
    let mut groups: Vec<Group> =
        (0..experts).map(|expert| Group { expert, rows: Vec::new(), shares: Vec::new() }).collect();
    for (row, logits) in logits.chunks_exact(experts).enumerate() {
        let mut order: Vec<usize> = (0..experts).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let chosen = &order[..used];
        // The softmax over all, divided by the sum of those that were chosen, is the softmax over these.
        let weights: Vec<f32> =
            chosen.iter().map(|expert| (logits[*expert] - logits[order[0]]).exp()).collect();
        let sum: f32 = weights.iter().sum();
        for (expert, weight) in chosen.iter().zip(weights) {
            groups[*expert].rows.push(row);
            groups[*expert].shares.push(weight / sum);
        }
    }
    groups.retain(|group| !group.rows.is_empty());
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_through_the_experts_that_its_router_prefers() {
        let third = 1.0 / 3.0;
        let two = std::f32::consts::LN_2;
        let groups = groups(&[0.0, two, -1.0, 5.0, 1.0, 5.0 + two], 3, 2);
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        let rows: Vec<_> = groups.iter().map(|group| (group.expert, &group.rows[..])).collect();
        assert_eq!(rows, [(0, &[0, 1][..]), (1, &[0]), (2, &[1])]);
        assert!(close(&groups[0].shares, &[third, third]));
        assert!(close(&groups[1].shares, &[2.0 * third]) && close(&groups[2].shares, &[2.0 * third]));
    }

    #[test]
    fn a_router_of_rubbish_still_chooses() {
        for rubbish in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let groups = groups(&[rubbish; 8], 4, 3);
            assert_eq!(groups.iter().map(|group| group.rows.len()).sum::<usize>(), 6);
        }
    }
}
