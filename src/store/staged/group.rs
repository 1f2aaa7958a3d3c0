//! Group commit: threads that write at the same time share one wait for the disk.
//!
//! A thread that finds no commit running becomes the leader: it takes all waiting transactions, commits them
//! together, and distributes the results. Threads that arrive meanwhile wait, and one of them leads next. A
//! single thread pays for two uncontended locks.

use super::operation::Op;
use crate::error::{Error, Result};
use crate::store::outcome::Committed;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Transactions that wait to be committed.
#[derive(Debug, Default)]
pub(crate) struct Group {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// The number of the next ticket.
    next: u64,
    waiting: Vec<(u64, Vec<Op>)>,
    answers: HashMap<u64, Result<Committed>>,
    /// Whether a leader is committing.
    led: bool,
    /// How many transactions the last commit had.
    last: usize,
}

/// Longest wait for threads that shared the last commit: about the time of one commit on disk.
const PATIENCE: Duration = Duration::from_micros(200);

impl Group {
    /// Adds a transaction and waits until it is committed, by this thread or by another. `commit_all` answers
    /// for each of those it is given, in order.
    pub(crate) fn commit(
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
        // Threads that shared a commit tend to return together, so wait briefly for them; otherwise the first
        // would commit alone and all others wait for it. A single thread never waits here.
        let until = (queue.last > 1).then(|| Instant::now() + PATIENCE);
        while queue.waiting.len() < queue.last && until.is_some_and(|until| Instant::now() < until) {
            MutexGuard::unlocked(&mut queue, std::thread::yield_now);
        }
        queue.last = queue.waiting.len();
        let (tickets, all): (Vec<u64>, Vec<Vec<Op>>) = std::mem::take(&mut queue.waiting).into_iter().unzip();
        drop(queue);
        // If this panics, the waiting threads must still get an answer.
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
