//! A disk in memory that can lose power, fail and fill up.
//!
//! It remembers every write in order. What a machine may find after power returns is computed from that
//! afterwards: everything before the last sync, and of what came after it any subset, in any order, torn at any
//! byte, with the file's growth lost or not, and garbage where nothing was written.

use apcm::StorageBackend;
use std::io;
use std::sync::{Arc, Mutex};

/// What was done to the disk.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Write { offset: u64, data: Vec<u8> },
    SetLen(u64),
    Sync,
    FailedSync(Loss),
}

/// What a failed sync does to writes that were not synced. Reading shows them all the same: the cache has them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Loss {
    /// They stay dirty: the next good sync writes them.
    #[default]
    Nothing,
    /// None arrives, and all are marked clean: no later sync writes them. So do ext4, XFS and Btrfs. The file's
    /// length is no page and stays to be written.
    All,
    /// Some arrive, chosen by this seed, and all are marked clean.
    Some(u64),
}

/// What a fault waits for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Call {
    Read,
    Write,
    SetLen,
    Sync,
}

/// What happens at the `at`-th call of a kind, counted from 0 from when it was set.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub call: Call,
    pub at: u64,
    pub kind: io::ErrorKind,
    /// Whether every later call of that kind fails too.
    pub lasting: bool,
}

/// The disk; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    log: Vec<Event>,
    fault: Option<Fault>,
    /// What a sync that fails does.
    loss: Loss,
    /// Calls of each kind since the fault was set.
    calls: [u64; 4],
    /// How often a fault struck.
    struck: u64,
}

impl Disk {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State { bytes, ..State::default() })))
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes.clone()
    }

    /// How many events there were.
    pub fn events(&self) -> usize {
        self.0.lock().unwrap().log.len()
    }

    pub fn log(&self) -> Vec<Event> {
        self.0.lock().unwrap().log.clone()
    }

    pub fn set_fault(&self, fault: Option<Fault>) {
        let mut state = self.0.lock().unwrap();
        state.fault = fault;
        state.calls = [0; 4];
        state.struck = 0;
    }

    /// Says what a sync that fails does from now on.
    pub fn set_loss(&self, loss: Loss) {
        self.0.lock().unwrap().loss = loss;
    }

    /// Calls of a kind since a fault was last set.
    pub fn calls(&self, call: Call) -> u64 {
        self.0.lock().unwrap().calls[call as usize]
    }

    /// How often the fault struck.
    pub fn struck(&self) -> u64 {
        self.0.lock().unwrap().struck
    }
}

impl State {
    fn enter(&mut self, call: Call) -> io::Result<()> {
        let count = self.calls[call as usize];
        self.calls[call as usize] += 1;
        if let Some(fault) = self.fault
            && fault.call == call
            && (count == fault.at || fault.lasting && count > fault.at)
        {
            self.struck += 1;
            return Err(fault.kind.into());
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.enter(Call::Read)?;
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(state.bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.enter(Call::SetLen)?;
        state.log.push(Event::SetLen(len));
        state.bytes.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        if let Err(error) = state.enter(Call::Sync) {
            let loss = state.loss;
            state.log.push(Event::FailedSync(loss));
            return Err(error);
        }
        state.log.push(Event::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.enter(Call::Write)?;
        let start = offset as usize;
        let end = start + data.len();
        state.bytes.get_mut(start..end).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        state.log.push(Event::Write { offset, data: data.to_vec() });
        Ok(())
    }
}

/// What became of an event that was not synced when the power failed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fate {
    Kept,
    Lost,
    /// Only the first bytes of a write arrived.
    Head(usize),
    /// Only what comes after the first bytes arrived.
    Tail(usize),
    /// Some sectors of 512 bytes arrived, others not: chosen by this seed.
    Sectors(u64),
}

/// What new bytes hold that nobody wrote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    Zeros,
    Garbage,
}

/// The disk at a point of its history: what is certain, and what is not.
#[derive(Debug, Clone)]
pub struct Moment<'a> {
    pub synced: Vec<u8>,
    pub pending: Vec<&'a Event>,
}

impl<'a> Moment<'a> {
    /// The moment after the first `count` of these events on a disk that began with these bytes.
    pub fn after(base: &[u8], log: &'a [Event], count: usize) -> Self {
        let mut moment = Self { synced: base.to_vec(), pending: Vec::new() };
        log[..count].iter().for_each(|event| moment.advance(event));
        moment
    }

    pub fn advance(&mut self, event: &'a Event) {
        match event {
            Event::Sync => {
                self.synced = self.image(|_| Fate::Kept, Fill::Zeros);
                self.pending.clear();
            }
            Event::FailedSync(Loss::Nothing) => {}
            Event::FailedSync(Loss::All) => self.pending.retain(|event| matches!(event, Event::SetLen(_))),
            Event::FailedSync(Loss::Some(seed)) => {
                let arrived = |index: usize| {
                    let chosen = Random(seed ^ index as u64).next() & 1 == 1;
                    if matches!(self.pending[index], Event::SetLen(_)) || chosen {
                        Fate::Kept
                    } else {
                        Fate::Lost
                    }
                };
                self.synced = self.image(arrived, Fill::Zeros);
                self.pending.clear();
            }
            other => self.pending.push(other),
        }
    }

    /// What is found when power returns.
    pub fn image(&self, fate: impl Fn(usize) -> Fate, fill: Fill) -> Vec<u8> {
        let order: Vec<usize> = (0..self.pending.len()).collect();
        self.image_in_order(&order, fate, fill)
    }

    /// The same with what was not synced arriving in another order: where writes overlap, the last one stays.
    pub fn image_in_order(&self, order: &[usize], fate: impl Fn(usize) -> Fate, fill: Fill) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        // A file's length changes in order, or not at all.
        for (index, event) in self.pending.iter().enumerate() {
            if let Event::SetLen(len) = event
                && fate(index) == Fate::Kept
            {
                let old = bytes.len();
                bytes.resize(*len as usize, 0);
                if fill == Fill::Garbage && bytes.len() > old {
                    let mut random = Random(0x9e37_79b9 ^ *len);
                    bytes[old..].iter_mut().for_each(|byte| *byte = random.next() as u8);
                }
            }
        }
        for &index in order {
            let Event::Write { offset, data } = self.pending[index] else { continue };
            let mut put = |from: usize, to: usize| {
                let start = (*offset as usize + from).min(bytes.len());
                let end = (*offset as usize + to).min(bytes.len());
                bytes[start..end].copy_from_slice(&data[from..][..end - start]);
            };
            match fate(index) {
                Fate::Kept => put(0, data.len()),
                Fate::Lost => {}
                Fate::Head(len) => put(0, len.min(data.len())),
                Fate::Tail(len) => put(len.min(data.len()), data.len()),
                Fate::Sectors(seed) => {
                    let mut random = Random(seed);
                    for from in (0..data.len()).step_by(512) {
                        if random.next() & 1 == 1 {
                            put(from, (from + 512).min(data.len()));
                        }
                    }
                }
            }
        }
        bytes
    }
}

/// Splitmix: the same numbers everywhere, from any seed.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
