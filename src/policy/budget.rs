//! What leaves when all slots together are over their bytes.
//!
//! Residuals first, memories last; the lowest rank first among either, the oldest among equals. What the transaction
//! itself has written comes after everything that was there before, or a newcomer that nobody could have read yet would
//! always be the first to pay.

/// What a slot weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) slot: u32,
    pub(crate) rank: u64,
    pub(crate) seq: u64,
    /// Bytes of its residual.
    pub(crate) residual: u64,
    /// Bytes of everything else.
    pub(crate) rest: u64,
    /// Pinned and damaged memories give nothing up.
    pub(crate) may_give: bool,
    /// Written by the transaction that is being planned.
    pub(crate) new: bool,
}

/// One thing to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relief {
    /// The residual of a slot.
    Residual(u32),
    /// The memory in a slot.
    Memory(u32),
}

/// The least that can be stored: more than the budget.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OverBudget {
    pub(crate) needed: u64,
}

/// What to give up, in order, so that the rest fits. Cost: one sort.
pub(crate) fn relieve(mut held: Vec<Held>, budget: u64) -> Result<Vec<Relief>, OverBudget> {
    let mut total: u64 = held.iter().map(|held| held.residual + held.rest).sum();
    held.retain(|held| held.may_give);
    held.sort_by_key(|held| (held.new, held.rank, held.seq));
    let mut given = Vec::new();
    for held in held.iter().filter(|held| held.residual > 0) {
        if total <= budget {
            return Ok(given);
        }
        total -= held.residual;
        given.push(Relief::Residual(held.slot));
    }
    for held in held.iter().filter(|held| !held.new) {
        if total <= budget {
            return Ok(given);
        }
        total -= held.rest;
        given.push(Relief::Memory(held.slot));
    }
    if total <= budget { Ok(given) } else { Err(OverBudget { needed: total }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn held(slot: u32, rank: u64, residual: u64) -> Held {
        Held { slot, rank, seq: u64::from(slot) + 1, residual, rest: 10, may_give: true, new: false }
    }

    #[test]
    fn residuals_leave_before_memories_and_the_least_used_before_the_rest() {
        let all = vec![held(0, 5, 30), held(1, 2, 30), held(2, 0, 0), Held { new: true, ..held(3, 0, 30) }];
        assert_eq!(relieve(all.clone(), 130), Ok(vec![]));
        assert_eq!(relieve(all.clone(), 100), Ok(vec![Relief::Residual(1)]));
        let residuals = vec![Relief::Residual(1), Relief::Residual(0), Relief::Residual(3)];
        assert_eq!(relieve(all.clone(), 40), Ok(residuals.clone()));
        let two = [residuals, vec![Relief::Memory(2), Relief::Memory(1)]].concat();
        assert_eq!(relieve(all.clone(), 20), Ok(two));
        assert_eq!(relieve(all, 9), Err(OverBudget { needed: 10 }));
        let pinned = vec![Held { may_give: false, ..held(0, 0, 30) }, held(1, 9, 0)];
        assert_eq!(relieve(pinned, 45), Ok(vec![Relief::Memory(1)]));
    }

    proptest! {
        #[test]
        fn what_is_left_fits_and_nothing_is_given_up_in_vain(
            sizes in prop::collection::vec((0_u64..4, 0_u64..50, any::<bool>(), any::<bool>()), 1..20),
            budget in 1_u64..600,
        ) {
            let all: Vec<Held> = sizes
                .iter()
                .enumerate()
                .map(|(slot, &(rank, residual, may_give, new))| Held { may_give, new, ..held(slot as u32, rank, residual) })
                .collect();
            let total: u64 = all.iter().map(|held| held.residual + held.rest).sum();
            if let Ok(given) = relieve(all.clone(), budget) {
                let freed = |given: &[Relief]| -> u64 {
                    given.iter().map(|relief| match *relief {
                        Relief::Residual(slot) => all[slot as usize].residual,
                        Relief::Memory(slot) => all[slot as usize].rest,
                    }).sum()
                };
                prop_assert!(total - freed(&given) <= budget);
                if let Some((_, but_the_last)) = given.split_last() {
                    prop_assert!(total - freed(but_the_last) > budget);
                }
            }
        }
    }
}
