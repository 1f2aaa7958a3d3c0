//! Power loss at every write (F2 to F7 of the fault matrix in docs/reliability.md).
//!
//! A workload runs once on a disk that remembers every write. From that history every state is computed in
//! which a machine may find the disk when power returns, and each must open as what was promised: the last
//! acknowledged state, or the one whose commit was under way, whole.

mod common;

use common::disk::{Disk, Event, Fate, Fill, Moment, Random};
use common::scripts::{
    Counts, Promise, SCRIPTS, Script, Snapshot, builder, counts, create, go, record, snapshot,
};
use rustc_hash::FxHasher;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};

/// One image in so many is written to after it was opened, and one is crashed again while it is being
/// recovered.
const AGAIN: usize = 10;
const TWICE: usize = 50;

/// More of everything: `APCM_DEEP=1 cargo test --release --test power_loss -- --nocapture`.
fn deep() -> bool {
    std::env::var_os("APCM_DEEP").is_some()
}

/// A workload's history.
struct History {
    log: Vec<Event>,
    promises: Vec<Promise>,
}

impl History {
    fn of(script: &Script) -> Self {
        let disk = Disk::new();
        let mut promises = Vec::new();
        let store = create(script, &disk).unwrap();
        go(script, &store, &disk, &mut promises).unwrap();
        store.close().unwrap();
        Self { log: disk.log(), promises }
    }

    /// The promises that a crash after this many events may leave: the last kept one, and the one under way.
    fn allowed(&self, events: usize) -> &[Promise] {
        let kept = self.promises.partition_point(|promise| promise.events <= events);
        &self.promises[kept - 1..(kept + 1).min(self.promises.len())]
    }

    /// Events at which a crash is tried: from the moment the store was there.
    fn points(&self) -> std::ops::RangeInclusive<usize> {
        self.promises[0].events..=self.log.len()
    }
}

/// What was found, over all images.
#[derive(Debug, Default)]
struct Tally {
    images: usize,
    found_old: usize,
    found_new: usize,
    counts_behind: usize,
    /// Images of a disk whose power failed again while it was being recovered.
    twice: usize,
    used_again: usize,
    seen: HashSet<u64>,
}

impl Tally {
    /// Opens an image and holds it against what may be there. Images that were seen are not opened again.
    fn check(&mut self, image: Vec<u8>, allowed: &[Promise], what: &str) {
        let mut hasher = FxHasher::default();
        (&image, allowed[0].events).hash(&mut hasher);
        if !self.seen.insert(hasher.finish()) {
            return;
        }
        self.images += 1;
        let disk = Disk::holding(image.clone());
        let (found, counted) = open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        let fits = |promise: &&Promise| promise.snapshot == found;
        let Some(promise) = allowed.iter().find(fits) else {
            panic!("{what}: neither what was promised nor what was under way:\n{found:#?}\n{allowed:#?}");
        };
        let new = allowed.len() > 1
            && allowed[1].snapshot != allowed[0].snapshot
            && promise.snapshot == allowed[1].snapshot;
        self.found_new += usize::from(new);
        self.found_old += usize::from(!new);
        let most = |id: &(u32, u64)| {
            allowed.iter().filter_map(|promise| promise.counted.get(id)).max().copied().unwrap_or(0)
        };
        for (id, &count) in &counted {
            let least = promise.flushed.get(id).copied().unwrap_or(0);
            assert!((least..=most(id)).contains(&count), "{what}: count of {id:?} is {count}");
            self.counts_behind += usize::from(count < promise.counted.get(id).copied().unwrap_or(0));
        }
        assert_eq!(counted.len(), promise.snapshot.memories.len());
        if self.images.is_multiple_of(AGAIN) {
            self.use_again(&disk, what);
        }
        if self.images.is_multiple_of(TWICE) {
            self.crash_again(&image, allowed, what);
        }
    }

    /// What was recovered can be written to, closed and opened.
    fn use_again(&mut self, disk: &Disk, what: &str) {
        let mut random = Random(self.images as u64);
        let store = builder().open_on(disk.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let put = store.insert(&record(&mut random)).unwrap();
        let left = snapshot(&store).unwrap();
        assert!(left.memories.contains_key(&(put.id.slot, put.id.seq)));
        store.close().unwrap();
        assert_eq!(open(disk).unwrap().0, left, "{what}");
        self.used_again += 1;
    }

    /// F7: the power fails again at every write of the recovery.
    fn crash_again(&mut self, image: &[u8], allowed: &[Promise], what: &str) {
        let disk = Disk::holding(image.to_vec());
        open(&disk).unwrap();
        let log = disk.log();
        let mut moment = Moment::after(image, &log, 0);
        for (point, event) in log.iter().enumerate() {
            moment.advance(event);
            let what = format!("{what}, and after event {point} of {} of the recovery", log.len());
            for fate in [Fate::Kept, Fate::Lost, Fate::Sectors(point as u64)] {
                let image = moment
                    .image(|i| if is_growth(moment.pending[i]) { Fate::Kept } else { fate }, Fill::Zeros);
                let found = open(&Disk::holding(image)).unwrap_or_else(|error| panic!("{what}: {error}")).0;
                assert!(allowed.iter().any(|promise| promise.snapshot == found), "{what}: {found:#?}");
                self.twice += 1;
            }
        }
    }
}

fn open(disk: &Disk) -> apcm::Result<(Snapshot, Counts)> {
    let store = builder().open_on(disk.clone())?;
    Ok((snapshot(&store)?, counts(&store)?))
}

fn is_growth(event: &Event) -> bool {
    matches!(event, Event::SetLen(_))
}

fn is_header(event: &Event) -> bool {
    matches!(event, Event::Write { offset, .. } if *offset < 512)
}

/// Every image of one moment: subsets, orders, tears, growth.
fn images(moment: &Moment<'_>, seed: u64, mut visit: impl FnMut(Vec<u8>, &str)) {
    let pending = moment.pending.len();
    let all = |fate| move |_: usize| fate;
    visit(moment.image(all(Fate::Kept), Fill::Zeros), "everything arrived");
    visit(moment.image(all(Fate::Lost), Fill::Zeros), "nothing arrived");
    if pending == 0 {
        return;
    }
    let mut random = Random(seed);
    // Where there are many, each alone is tried for some of them.
    for index in 0..pending {
        visit(
            moment.image(|i| if i == index { Fate::Lost } else { Fate::Kept }, Fill::Zeros),
            "all but one arrived",
        );
        visit(
            moment.image(|i| if i == index { Fate::Kept } else { Fate::Lost }, Fill::Garbage),
            "one arrived",
        );
    }
    let subsets = if deep() { 400 } else { 40 };
    for _ in 0..subsets {
        let (subset, fill) =
            (random.next(), if random.next() & 1 == 1 { Fill::Zeros } else { Fill::Garbage });
        let arrived = |i: usize| if (subset >> (i % 64)) & 1 == 1 { Fate::Kept } else { Fate::Lost };
        visit(moment.image(arrived, fill), "a subset arrived");
        let header = |first| move |i: usize| if is_header(moment.pending[i]) { first } else { arrived(i) };
        visit(moment.image(header(Fate::Kept), fill), "a subset and the header arrived");
        visit(moment.image(header(Fate::Lost), fill), "a subset without the header arrived");
        let torn = |i: usize| Fate::Sectors(subset ^ i as u64);
        visit(
            moment.image(|i| if is_growth(moment.pending[i]) { arrived(i) } else { torn(i) }, fill),
            "sectors arrived",
        );
        let mut order: Vec<usize> = (0..pending).collect();
        for i in (1..pending).rev() {
            order.swap(i, random.below(i as u64 + 1) as usize);
        }
        visit(moment.image_in_order(&order, arrived, fill), "a subset arrived in another order");
    }
    let growth = |i: usize| if is_growth(moment.pending[i]) { Fate::Lost } else { Fate::Kept };
    visit(moment.image(growth, Fill::Zeros), "all but the growth arrived");
    let only_growth = |i: usize| if is_growth(moment.pending[i]) { Fate::Kept } else { Fate::Lost };
    visit(moment.image(only_growth, Fill::Garbage), "only the growth arrived");
}

/// The last write torn: the header at every byte, a page at every sector and next to it.
fn tears(moment: &Moment<'_>, mut visit: impl FnMut(Vec<u8>, &str)) {
    let Some((last, Event::Write { data, .. })) =
        moment.pending.iter().enumerate().next_back().map(|(i, e)| (i, *e))
    else {
        return;
    };
    let header = is_header(moment.pending[last]);
    let step = if header { 1 } else { 512 };
    for at in (1..data.len()).step_by(step) {
        for fate in [Fate::Head(at), Fate::Tail(at)] {
            visit(
                moment.image(|i| if i == last { fate } else { Fate::Kept }, Fill::Zeros),
                "the last write was torn",
            );
            visit(
                moment.image(|i| if i == last { fate } else { Fate::Lost }, Fill::Zeros),
                "a torn write arrived alone",
            );
        }
    }
}

fn crash_everywhere(script: &Script) {
    let history = History::of(script);
    let mut tally = Tally::default();
    let mut moment = Moment::after(&[], &history.log, *history.points().start());
    for point in history.points() {
        if point > *history.points().start() {
            moment.advance(&history.log[point - 1]);
        }
        let allowed = history.allowed(point);
        let named =
            |what: &str| format!("{}, after event {point} of {}: {what}", script.name, history.log.len());
        // F2: the writes so far, in order.
        tally.check(moment.image(|_| Fate::Kept, Fill::Zeros), allowed, &named("in order"));
        // F5: the last one torn.
        tears(&moment, |image, what| tally.check(image, allowed, &named(what)));
        // F3, F4, F6: where most is pending, before each sync and at the end.
        if history.log.get(point).is_none_or(|next| *next == Event::Sync) {
            images(&moment, point as u64, |image, what| tally.check(image, allowed, &named(what)));
        }
    }
    let Tally { images, found_old, found_new, counts_behind, twice, used_again, .. } = tally;
    eprintln!(
        "{}: {} events, {} promises; {images} images: {found_old} as promised, {found_new} as under way, \
         {counts_behind} counts behind; {used_again} written to again; {twice} images of a second crash",
        script.name,
        history.log.len(),
        history.promises.len(),
    );
    // A bucket that stays empty would mean that the generator has stopped reaching it.
    assert!(found_old > 1_000 && found_new > 10 && used_again > 100 && twice > 100);
}

#[test]
fn f2_to_f7_fill_and_evict() {
    crash_everywhere(&SCRIPTS[0]);
}

#[test]
fn f2_to_f7_batches() {
    crash_everywhere(&SCRIPTS[1]);
}

#[test]
fn f2_to_f7_tiers_under_a_budget() {
    crash_everywhere(&SCRIPTS[2]);
}

#[test]
fn f2_to_f7_streams_and_policies() {
    crash_everywhere(&SCRIPTS[3]);
}
