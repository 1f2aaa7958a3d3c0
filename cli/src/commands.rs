//! All commands: what `apcm --help` shows, and which function runs each.

use crate::demo::{self, Demo};
use crate::files::{self, Compact, Repair, Unpack, Verify};
use crate::options::CopyTo;
use crate::outcome::Outcome;
use crate::output;
use crate::read::{self, Export, Get, List, Search, Stats};
use crate::report::{self, Report};
use crate::stream::{self, StreamCommand};
use crate::train::{self, Train};
use crate::write::{self, ChangePolicy, Create, Ingest, Insert, Pin, Put, Recode, Remove};
use clap::{CommandFactory, Parser, Subcommand};

/// An embedded store for memories: one file, a fixed number of slots, a learned codec.
#[derive(Debug, Parser)]
#[command(
    name = "apcm",
    version,
    after_help = "Exit codes: 0 done, 1 failure, 2 usage, 3 not found, 4 not a store or damaged, 5 in use, \
                  6 another codec, 7 needs recovery, 130 stopped by a signal.\n\n\
                  Examples:\n  \
                  apcm demo\n  \
                  apcm train embeddings.npy --bytes 64 --out text.codec\n  \
                  apcm create memory.apcm --codec text.codec --capacity 10000\n  \
                  apcm ingest memory.apcm embeddings.npy --keys row\n  \
                  apcm search memory.apcm --queries query.npy --k 5 --json"
)]
pub(crate) struct Arguments {
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train on real images, fill a store, evict, read back, reopen: all of apcm in one to three minutes
    #[command(after_help = "Examples:\n  apcm demo\n  apcm demo --out /tmp/demo --json")]
    Demo(Demo),
    /// Train a codec on a dataset (.npy, idx, idx.gz)
    #[command(after_help = "Examples:\n  apcm train images-idx3-ubyte.gz --bytes 32 --out images.codec\n  \
                            apcm train embeddings.npy --quantizer i8 --bytes 128 --out text.codec")]
    Train(Train),
    /// Compare codecs on your own data: bytes, error and recall, as a table, pictures and a page
    #[command(
        after_help = "Examples:\n  apcm report --train train.npy --heldout heldout.npy --bytes 16,32,64 --out report\n  \
                            apcm report --train images-idx3-ubyte.gz --bytes 32 --out report --minutes 1"
    )]
    Report(Report),
    /// Create an empty store with a codec inside
    #[command(after_help = "Example:\n  apcm create memory.apcm --codec text.codec --capacity 10000")]
    Create(Create),
    /// Put a whole dataset into a store, resumably
    #[command(after_help = "Examples:\n  apcm ingest memory.apcm embeddings.npy --keys row\n  \
                            apcm ingest memory.apcm notes.npy --keys id --metadata notes.jsonl --resume")]
    Ingest(Ingest),
    /// Insert the records of a file, without keys
    #[command(
        after_help = "Example:\n  apcm insert memory.apcm record.npy --metadata '{\"kind\": \"note\"}'"
    )]
    Insert(Insert),
    /// Put one record under a key, replacing what was there
    #[command(
        after_help = "Example:\n  apcm put memory.apcm user/42 record.npy --metadata '{\"kind\": \"note\"}'"
    )]
    Put(Put),
    /// Write the record with a key to a file; not counted as an access
    #[command(after_help = "Example:\n  apcm get memory.apcm user/42 --out record.npy")]
    Get(Get),
    /// Remove the memory with a key
    #[command(after_help = "Example:\n  apcm remove memory.apcm user/42")]
    Remove(Remove),
    /// Pin or unpin a memory; pinned memories are never evicted
    #[command(after_help = "Examples:\n  apcm pin memory.apcm user/42\n  apcm pin memory.apcm user/42 --off")]
    Pin(Pin),
    /// Streams: sequences folded into a few slots each
    #[command(subcommand)]
    Stream(StreamCommand),
    /// Print or change the eviction policy of a store
    #[command(
        after_help = "Examples:\n  apcm policy memory.apcm\n  apcm policy memory.apcm lru\n  apcm policy memory.apcm lfu-aged:40000"
    )]
    Policy(ChangePolicy),
    /// Find the nearest memories of each query; not counted as accesses
    #[command(
        after_help = "Example:\n  apcm search memory.apcm --queries q.npy --k 5 --filter \"kind = 'note'\""
    )]
    Search(Search),
    /// List memories in slot order
    #[command(after_help = "Example:\n  apcm list memory.apcm --filter \"year >= 2025\" --limit 20")]
    List(List),
    /// Write all records, reconstructed, to a folder: records.npy and records.jsonl
    #[command(after_help = "Example:\n  apcm export memory.apcm --out backup/")]
    Export(Export),
    /// Move a store to another codec, into a new file or in place; an interrupted move is resumed
    #[command(
        after_help = "Examples:\n  apcm recode memory.apcm --codec smaller.codec --out smaller.apcm\n  \
                            apcm recode memory.apcm --codec smaller.codec"
    )]
    Recode(Recode),
    /// Print statistics of a store
    #[command(after_help = "Examples:\n  apcm stats memory.apcm --json\n  apcm stats memory.apcm --recover")]
    Stats(Stats),
    /// Look for damage: every checksum, every row, every page; the file is only read
    #[command(after_help = "Examples:\n  apcm verify memory.apcm\n  apcm verify memory.apcm --json")]
    Verify(Verify),
    /// Print the planned repairs; with --apply, carry them out
    #[command(after_help = "Examples:\n  apcm repair memory.apcm\n  apcm repair memory.apcm --apply")]
    Repair(Repair),
    /// Copy all readable memories of a damaged file into a new one
    #[command(after_help = "Example:\n  apcm salvage damaged.apcm --out saved.apcm")]
    Salvage(CopyTo),
    /// Copy a snapshot of a store into another file
    #[command(after_help = "Example:\n  apcm backup memory.apcm --out backup.apcm")]
    Backup(CopyTo),
    /// Write a store into a pack: an immutable file that is mapped and searched in place; search, get and
    /// verify take it
    #[command(after_help = "Examples:\n  apcm pack memory.apcm --out memory.apack\n  \
                            apcm search memory.apack --queries q.npy --k 5")]
    Pack(CopyTo),
    /// Create a store from a pack, with its memories, ids and counts; or import the memories into an existing
    /// store
    #[command(after_help = "Examples:\n  apcm unpack memory.apack --out memory.apcm\n  \
                            apcm unpack memory.apack --into other.apcm")]
    Unpack(Unpack),
    /// Shrink a file to the size of its contents
    #[command(after_help = "Example:\n  apcm compact memory.apcm")]
    Compact(Compact),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  apcm completions bash > /etc/bash_completion.d/apcm")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Runs it.
    pub(crate) fn run(self, json: bool) -> Outcome {
        match self {
            Self::Demo(demo) => demo::run(&demo, json),
            Self::Train(train) => train::run(&train, json),
            Self::Report(arguments) => report::run(&arguments, json),
            Self::Create(create) => write::create(&create, json),
            Self::Ingest(ingest) => write::ingest(&ingest, json),
            Self::Insert(insert) => write::insert(&insert, json),
            Self::Put(put) => write::put(&put, json),
            Self::Remove(remove) => write::remove(&remove, json),
            Self::Pin(pin) => write::pin(&pin, json),
            Self::Stream(stream) => stream::run(&stream, json),
            Self::Policy(policy) => write::policy(&policy, json),
            Self::Get(get) => read::get(&get, json),
            Self::Search(search) => read::search(&search, json),
            Self::List(list) => read::list(&list, json),
            Self::Export(export) => read::export(&export, json),
            Self::Recode(arguments) => write::recode(&arguments, json),
            Self::Stats(stats) => read::stats(&stats, json),
            Self::Verify(verify) => files::verify(&verify, json),
            Self::Repair(repair) => files::repair(&repair, json),
            Self::Salvage(salvage) => files::salvage(&salvage, json),
            Self::Backup(backup) => files::backup(&backup, json),
            Self::Pack(pack) => files::pack(&pack, json),
            Self::Unpack(unpack) => files::unpack(&unpack, json),
            Self::Compact(compact) => files::compact(&compact, json),
            Self::Completions { shell } => completions(shell),
        }
    }

    /// Whether it asks now and then if it is to go on: then a signal ends it in order, and otherwise at once.
    pub(crate) fn can_be_stopped(&self) -> bool {
        matches!(
            self,
            Self::Train(_)
                | Self::Report(_)
                | Self::Ingest(_)
                | Self::Recode(_)
                | Self::Verify(_)
                | Self::Repair(_)
                | Self::Salvage(_)
                | Self::Backup(_)
                | Self::Pack(_)
                | Self::Unpack(_)
        )
    }
}

pub(crate) fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "apcm", &mut script);
    output::print(&script)
}
