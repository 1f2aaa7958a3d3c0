//! Is a concurrent history linearizable? Wing and Gong's search with Lowe's memory of what was tried.
//!
//! J. Wing, C. Gong, "Testing and Verifying Concurrent Objects", 1993; G. Lowe, "Testing for linearizability",
//! 2017.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};

/// What an object does when one operation follows another.
pub trait Sequential: Clone + Eq + Hash {
    type Op;

    /// The state after an operation with the response that it had; none where that cannot be its response.
    fn after(&self, op: &Self::Op) -> Option<Self>;
}

/// An operation, with its response, and when it began and ended. One whose outcome is unknown never ended: it
/// may have taken effect at any time since, or not at all.
#[derive(Debug, Clone)]
pub struct Call<Op> {
    pub op: Op,
    pub invoked: u64,
    pub returned: Option<u64>,
}

/// Time, as far as order goes.
#[derive(Debug, Default)]
pub struct Ticks(AtomicU64);

impl Ticks {
    pub fn now(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// An order in which the calls could have been made one after the other, or none.
pub fn linearize<S: Sequential>(start: S, history: &[Call<S::Op>]) -> Option<Vec<usize>> {
    let returned = |call: &Call<S::Op>| call.returned.unwrap_or(u64::MAX);
    let mut order: Vec<usize> = (0..history.len()).collect();
    order.sort_by_key(|&at| history[at].invoked);
    let mut done = vec![false; history.len()];
    let mut tried: HashSet<(Vec<bool>, S)> = HashSet::new();
    // Each level: the state, the call that led to it, and the calls that may come next.
    let mut chosen: Vec<usize> = Vec::new();
    let mut states = vec![start];
    let next = |done: &[bool]| -> Vec<usize> {
        // A call may come next if no other had returned before it was invoked.
        let first = order.iter().filter(|&&at| !done[at]).map(|&at| returned(&history[at])).min();
        let first = first.unwrap_or(u64::MAX);
        order.iter().copied().filter(|&at| !done[at] && history[at].invoked < first).collect()
    };
    let mut candidates = vec![next(&done)];
    loop {
        // Calls that never ended need not have taken effect.
        if (0..history.len()).all(|at| done[at] || history[at].returned.is_none()) {
            return Some(chosen);
        }
        let level = candidates.len() - 1;
        match candidates[level].pop() {
            Some(at) => {
                let Some(state) = states[level].after(&history[at].op) else { continue };
                done[at] = true;
                if tried.insert((done.clone(), state.clone())) {
                    chosen.push(at);
                    states.push(state);
                    candidates.push(next(&done));
                } else {
                    done[at] = false;
                }
            }
            None => {
                candidates.pop();
                states.pop();
                let at = chosen.pop()?;
                done[at] = false;
            }
        }
    }
}
