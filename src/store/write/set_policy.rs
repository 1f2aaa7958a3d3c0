//! Changing the eviction policy, in one durable transaction.

use super::commit::durable;
use crate::error::{Error, Result};
use crate::policy::Rule;
use crate::store::engine::Engine;
use crate::store::file::{HEADER, META, USES, storage, use_place};
use crate::store::resident::Uses;
use crate::store::store::Store;
use apcm_format::{Policy, StoreHeader};

/// A policy as the public face takes it, or an error with the numbers.
pub(crate) fn check_policy(policy: Policy) -> Result<()> {
    match policy {
        Policy::LfuAged { half_life: 0 } => Err(Error::argument("the half-life", "at least 1", 0)),
        _ => Ok(()),
    }
}

impl Store {
    /// The eviction policy.
    pub fn policy(&self) -> Policy {
        self.engine.resident.read().policy()
    }

    /// Changes the eviction policy; durable when this returns.
    ///
    /// Access counts stay. A policy that needs to know more begins with what there is: each memory as if its
    /// reads had come right after it was written, and writes as if the store's reads had come evenly between
    /// them. Cost: `O(n)`, 8 bytes a slot on disk and 16 in memory for [`Policy::Lru`] and [`Policy::LfuAged`].
    ///
    /// ```
    /// use apcm::{InMemoryBackend, PlainCodec, Policy, Record, Store};
    /// # fn main() -> apcm::Result<()> {
    /// let builder = Store::builder().capacity(2).policy(Policy::Fifo);
    /// let store = builder.create_on(InMemoryBackend::new(), PlainCodec::new(&[2], 2)?)?;
    /// let first = store.insert(&Record::vector(vec![1.0, 0.0])?)?;
    /// let second = store.insert(&Record::vector(vec![0.0, 1.0])?)?;
    /// store.set_policy(Policy::Lru)?;
    /// store.get_id(first.id)?;
    /// let third = store.insert(&Record::vector(vec![1.0, 1.0])?)?;
    /// assert_eq!(third.evicted[0].id, second.id);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) for a half-life of 0, [`ReadOnly`](Error::ReadOnly),
    /// [`Storage`](Error::Storage), [`OutcomeUnknown`](Error::OutcomeUnknown), after which it is the old policy
    /// or the new one; any other failure leaves the old.
    pub fn set_policy(&self, policy: Policy) -> Result<()> {
        check_policy(policy)?;
        self.engine.set_policy(policy)
    }
}

impl Engine {
    pub(crate) fn set_policy(&self, policy: Policy) -> Result<()> {
        self.check_usable()?;
        self.handle.writable()?;
        self.flush()?;
        let _writer = self.writer.lock();
        self.check_usable()?;
        let uses = {
            let resident = self.resident.read();
            if resident.policy() == policy {
                return Ok(());
            }
            let mut uses = Uses::new(Rule(policy));
            for (slot, occupant) in resident.bank().iter() {
                uses.keep(slot);
                let (written, count) = (resident.tick_of(occupant.seq), resident.counts().get(slot));
                uses.restore(slot, uses.rule().estimated(written, count));
            }
            uses
        };
        let taken = uses.take(&[]);
        self.poisoning("commit", || {
            let transaction = self.handle.writable()?.begin_write().map_err(storage("begin a write"))?;
            {
                let header = StoreHeader { policy, ..self.header.clone() };
                let mut meta = transaction.open_table(META).map_err(storage("open a table"))?;
                meta.insert(HEADER, header.encode().as_slice()).map_err(storage("write the header"))?;
            }
            transaction.delete_table(USES).map_err(storage("clear the uses"))?;
            if uses.rule().keeps_words() {
                let mut table = transaction.open_table(USES).map_err(storage("open a table"))?;
                for (number, chunk) in taken.chunks() {
                    let value = chunk.encode(use_place(self.header.uuid, number));
                    table.insert(number, value.as_slice()).map_err(storage("write the uses"))?;
                }
            }
            durable(transaction)
        })?;
        let mut resident = self.resident.write();
        let mut uses = uses;
        uses.settle(taken, &[]);
        resident.set_uses(uses);
        Ok(())
    }
}
