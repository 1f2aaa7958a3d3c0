//! A table by slot number that allocates only the pages in use: its memory grows with the number of filled
//! slots, not with the highest slot number.

use crate::claim::{Refused, reserve};
use std::alloc::{Layout, handle_alloc_error};

/// Slots in a page, and pages in a branch. With slot numbers of 27 bits the root has at most 8,192 branches.
const PAGE: usize = 64;
const BRANCH: usize = 256;

/// One value for each slot; a slot that was never written holds the default, or has no page.
///
/// Cost: three reads for each access. A page takes the memory of 64 values, even if one slot in it is filled; a
/// branch takes that of 256 empty vectors.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paged<T> {
    /// `[branch][page][slot]`; what is not there is empty.
    root: Vec<Vec<Vec<T>>>,
    pages: usize,
    branches: usize,
}

/// Where a slot lies: branch, page, place.
fn place(slot: u32) -> (usize, usize, usize) {
    let slot = slot as usize;
    (slot / (PAGE * BRANCH), slot / PAGE % BRANCH, slot % PAGE)
}

impl<T> Paged<T> {
    /// Bytes that one filled slot takes at least, with others beside it.
    pub(crate) const BYTES_PER_SLOT: usize = size_of::<T>();

    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        let (branch, page, at) = place(slot);
        self.root.get(branch)?.get(page)?.get(at)
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        let (branch, page, at) = place(slot);
        self.root.get_mut(branch)?.get_mut(page)?.get_mut(at)
    }

    /// Values of all pages that are there, in the order of their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.root.iter().zip(0..).flat_map(|(branch, high)| {
            branch.iter().zip(0..).flat_map(move |(page, low)| {
                let first = (high * BRANCH as u32 + low) * PAGE as u32;
                page.iter().zip(first..).map(|(value, slot)| (slot, value))
            })
        })
    }

    /// Bytes that it takes.
    pub(crate) fn memory(&self) -> u64 {
        let root = self.root.capacity() * size_of::<Vec<Vec<T>>>();
        let branches = self.branches * BRANCH * size_of::<Vec<T>>();
        (root + branches + self.pages * PAGE * size_of::<T>()) as u64
    }
}

impl<T: Default> Paged<T> {
    /// Takes the memory of a slot's page, if it is not there: putting a value there asks for none then.
    pub(crate) fn reserve(&mut self, slot: u32) -> Result<(), Refused> {
        let (branch, page, _) = place(slot);
        if branch >= self.root.len() {
            reserve(&mut self.root, branch + 1)?;
            self.root.resize_with(branch + 1, Vec::new);
        }
        let pages = &mut self.root[branch];
        if pages.is_empty() {
            reserve(pages, BRANCH)?;
            pages.resize_with(BRANCH, Vec::new);
            self.branches += 1;
        }
        let values = &mut pages[page];
        if values.is_empty() {
            reserve(values, PAGE)?;
            values.resize_with(PAGE, T::default);
            self.pages += 1;
        }
        Ok(())
    }

    /// The value of a slot, whose page is made where it is not there. Where the system has no memory left the
    /// process aborts, as with a vector that grows, unless it was asked for with [`reserve`](Self::reserve).
    pub(crate) fn entry(&mut self, slot: u32) -> &mut T {
        if self.reserve(slot).is_err() {
            handle_alloc_error(Layout::new::<[T; PAGE]>());
        }
        let (branch, page, at) = place(slot);
        &mut self.root[branch][page][at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(puts in prop::collection::vec((0_u32..1 << 27, 1_u8..), 0..40),
            near in 0_u32..1 << 27) {
            let mut paged = Paged::default();
            let mut map = BTreeMap::new();
            for (slot, value) in puts {
                for slot in [slot, (near + slot % 200).min((1 << 27) - 1)] {
                    *paged.entry(slot) = value;
                    map.insert(slot, value);
                    let most = 196_608 + map.len() * (PAGE + BRANCH * size_of::<Vec<u8>>());
            prop_assert!(paged.memory() as usize <= most);
                }
            }
            let there: Vec<(u32, u8)> = paged.iter().filter(|(_, value)| **value > 0).map(|(slot,
                value)| (slot, *value)).collect();
            prop_assert_eq!(there, map.iter().map(|(&slot, &value)| (slot, value)).collect::<Vec<_>>());
            for (slot, value) in map {
                prop_assert_eq!(paged.get(slot), Some(&value));
                prop_assert!(paged.get(slot ^ 1).is_some(), "a page holds its neighbours");
            }
        }
    }

    #[test]
    fn what_was_never_put_is_not_there() {
        let mut paged = Paged::<u64>::default();
        assert_eq!((paged.get(0), paged.iter().count(), paged.memory()), (None, 0, 0));
        assert_eq!(paged.get_mut(u32::MAX), None);
        *paged.entry(70) = 7;
        let found = (paged.get(70), paged.get(64), paged.get(63), paged.iter().count());
        assert_eq!(found, (Some(&7), Some(&0), None, 64));
    }
}
