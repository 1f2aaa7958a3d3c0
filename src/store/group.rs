//! Group commit: threads that write at the same time share one wait for the disk.
//!
//! Whoever comes while nobody commits leads: it takes all that wait, its own and those of others, commits them in one
//! go, and hands out the answers. Whoever comes meanwhile waits, and one of them leads next. A thread alone pays for two
//! locks that nobody contends for.

use super::memory::Committed;
use super::transaction::Op;
use crate::error::{Error, Result};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Transactions that wait to be committed.
#[derive(Debug, Default)]
pub(super) struct Group {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// The number of the next ticket.
    next: u64,
    waiting: Vec<(u64, Vec<Op>)>,
    answers: HashMap<u64, Result<Committed>>,
    /// Somebody commits.
    led: bool,
    /// How many transactions the last commit had.
    last: usize,
}

/// Longest wait for those who were answered together: about what the disk takes for one commit.
const PATIENCE: Duration = Duration::from_micros(200);

impl Group {
    /// Adds a transaction and waits until it is committed, by this thread or by another. `commit_all` answers for each of
    /// those it is given, in order.
    pub(super) fn commit(
        &self,
        ops: Vec<Op>,
        commit_all: impl FnOnce(&[Vec<Op>]) -> Vec<Result<Committed>>,
    ) -> Result<Committed> {
        let mut queue = self.queue.lock();
        let ticket = queue.next;
        queue.next += 1;
        queue.waiting.push((ticket, ops));
        while queue.led {
            self.changed.wait(&mut queue);
            if let Some(answer) = queue.answers.remove(&ticket) {
                return answer;
            }
        }
        queue.led = true;
        // Who was answered together comes back together: the first of them would commit alone, and all others wait for
        // that. A thread by itself never waits here.
        let until = (queue.last > 1).then(|| Instant::now() + PATIENCE);
        while queue.waiting.len() < queue.last && until.is_some_and(|until| Instant::now() < until) {
            MutexGuard::unlocked(&mut queue, std::thread::yield_now);
        }
        queue.last = queue.waiting.len();
        let (tickets, all): (Vec<u64>, Vec<Vec<Op>>) = std::mem::take(&mut queue.waiting).into_iter().unzip();
        drop(queue);
        // Should anything panic here, the others must not wait for ever.
        let mut end = End { group: self, tickets, answers: Vec::new() };
        end.answers = commit_all(&all);
        drop(end);
        self.queue.lock().answers.remove(&ticket).unwrap_or_else(|| Err(unanswered()))
    }
}

/// Hands out the answers of a commit when it is over, however it ended.
struct End<'a> {
    group: &'a Group,
    tickets: Vec<u64>,
    answers: Vec<Result<Committed>>,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut queue = self.group.queue.lock();
        let mut answers = std::mem::take(&mut self.answers).into_iter();
        for &ticket in &self.tickets {
            queue.answers.insert(ticket, answers.next().unwrap_or_else(|| Err(unanswered())));
        }
        queue.led = false;
        self.group.changed.notify_all();
    }
}

fn unanswered() -> Error {
    Error::OutcomeUnknown {
        source: "the thread that committed for this one as well did not come back".into(),
    }
}
