//! Arguments of every command.

use super::Outcome;
use crate::whole_file::Taken;
use crate::{Device, Policy, Preset, Similarity};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

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
pub(super) struct Arguments {
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Train on real images, fill a store, forget, read back, reopen: the whole of apcm in a minute
    #[command(after_help = "Examples:\n  apcm demo\n  apcm demo --out /tmp/demo --json")]
    Demo(Demo),
    /// Train a codec on a dataset (.npy, idx, idx.gz)
    #[command(after_help = "Examples:\n  apcm train images-idx3-ubyte.gz --bytes 32 --out images.codec\n  \
                            apcm train embeddings.npy --quantizer i8 --bytes 128 --out text.codec")]
    Train(Train),
    /// Compare codecs on your own data: bytes against error and recall, in a table, pictures and a page
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
    /// Make a memory never a victim, or a possible one again
    #[command(after_help = "Examples:\n  apcm pin memory.apcm user/42\n  apcm pin memory.apcm user/42 --off")]
    Pin(Pin),
    /// Streams: sequences folded into a few slots each
    #[command(subcommand)]
    Stream(StreamCommand),
    /// Say or change who makes room once a store is full
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
    /// Move a store to another codec, into a new file or in its place; an interrupted move goes on where it stopped
    #[command(
        after_help = "Examples:\n  apcm recode memory.apcm --codec smaller.codec --out smaller.apcm\n  \
                            apcm recode memory.apcm --codec smaller.codec"
    )]
    Recode(Recode),
    /// Show a store in numbers
    #[command(after_help = "Examples:\n  apcm stats memory.apcm --json\n  apcm stats memory.apcm --recover")]
    Stats(Stats),
    /// Look for damage: every checksum, every row, every page; the file is only read
    #[command(after_help = "Examples:\n  apcm verify memory.apcm\n  apcm verify memory.apcm --json")]
    Verify(Verify),
    /// Say what would be done about damage; with --apply, do it
    #[command(after_help = "Examples:\n  apcm repair memory.apcm\n  apcm repair memory.apcm --apply")]
    Repair(Repair),
    /// Copy everything that can be read of a damaged file into a new one
    #[command(after_help = "Example:\n  apcm salvage damaged.apcm --out saved.apcm")]
    Salvage(CopyTo),
    /// Copy a store as it is now into another file
    #[command(after_help = "Example:\n  apcm backup memory.apcm --out backup.apcm")]
    Backup(CopyTo),
    /// Write a store into a pack: an immutable file that is mapped and searched in place; search, get and verify take it
    #[command(after_help = "Examples:\n  apcm pack memory.apcm --out memory.apack\n  \
                            apcm search memory.apack --queries q.npy --k 5")]
    Pack(CopyTo),
    /// Make a store of a pack, with the memories, ids and counts that the store had; or put the pack's memories into one that is there
    #[command(after_help = "Examples:\n  apcm unpack memory.apack --out memory.apcm\n  \
                            apcm unpack memory.apack --into other.apcm")]
    Unpack(Unpack),
    /// Make a file as small as its contents allow
    #[command(after_help = "Example:\n  apcm compact memory.apcm")]
    Compact(Compact),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  apcm completions bash > /etc/bash_completion.d/apcm")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Folder for memory.apcm and the pictures
    #[arg(long, default_value = "apcm-demo")]
    pub(super) out: PathBuf,
    /// Images to use instead of those of the project: idx or idx.gz, 10,000 of 28x28
    #[arg(long)]
    pub(super) data: Option<PathBuf>,
    /// Where to compute
    #[arg(long, default_value = "cpu")]
    pub(super) device: Device,
}

impl Command {
    /// Whether it asks now and then if it is to go on: then a signal ends it in order, and otherwise at once.
    pub(super) fn can_be_stopped(&self) -> bool {
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

/// Which records belong together.
#[derive(Debug, Clone, Args)]
pub(super) struct Groups {
    /// Every N records, one after the other, belong together (tokens of a sequence, frames of a clip): they are set aside
    /// together
    #[arg(long = "group", value_name = "N", conflicts_with = "group_field")]
    pub(super) every: Option<usize>,
    /// Records with the same value in this field of the JSONL file beside the data belong together
    #[arg(long = "group-field", value_name = "FIELD")]
    pub(super) group_field: Option<String>,
}

/// What happens to a file that is there already.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Force {
    /// Replace a file that is there already
    #[arg(long)]
    pub(super) force: bool,
}

impl From<Force> for Taken {
    fn from(force: Force) -> Self {
        if force.force { Self::Replace } else { Self::Refuse }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Quantizer {
    /// Whichever loses least on records set aside
    Auto,
    /// Entropy coded: codes of any length, these bytes on average
    Entropy,
    /// Entropy coded, every code of these bytes
    EntropyFixed,
    /// Residual codebooks, every code of these bytes
    Residual,
    /// Bits where the variance is
    Allocated,
    /// One byte a value
    I8,
    /// Two bytes a value
    F16,
    /// Four bytes a value
    F32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum PresetName {
    /// Principal axes first; every stage kept only if it pays
    Ordered,
    /// The ApCM network as published
    Paper,
}

impl From<PresetName> for Preset {
    fn from(name: PresetName) -> Self {
        match name {
            PresetName::Ordered => Self::Ordered,
            PresetName::Paper => Self::Paper,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum SimilarityName {
    /// Cosine of the records
    Cosine,
    /// Cosine about the mean of the training data: better for images
    CentredCosine,
}

impl From<SimilarityName> for Similarity {
    fn from(name: SimilarityName) -> Self {
        match name {
            SimilarityName::Cosine => Self::Cosine,
            SimilarityName::CentredCosine => Self::CentredCosine,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Train {
    /// The dataset; its first axis counts the records
    pub(super) data: PathBuf,
    /// Bytes of a code; of codes of any length their mean, with what they need beside them
    #[arg(long, required_unless_present_any = ["error", "sequence"])]
    pub(super) bytes: Option<usize>,
    /// Mean squared error per element instead of bytes: entropy coded, bytes as they come
    #[arg(long, conflicts_with_all = ["bytes", "quantizer"])]
    pub(super) error: Option<f64>,
    /// Train a sweeper tree for streams instead: every LENGTH records, one after the other, are a sequence
    #[arg(long, value_name = "LENGTH", conflicts_with_all = ["bytes", "error", "quantizer", "max_bytes", "preset", "couplings"])]
    pub(super) sequence: Option<usize>,
    /// Most values of a state of a sequence
    #[arg(long, default_value_t = 1_024, requires = "sequence")]
    pub(super) state: usize,
    /// Longest code of any single record, where codes are entropy coded
    #[arg(long)]
    pub(super) max_bytes: Option<usize>,
    /// File for the codec
    #[arg(long)]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) force: Force,
    /// How coordinates become bytes
    #[arg(long, value_enum, default_value = "auto")]
    pub(super) quantizer: Quantizer,
    /// Which network
    #[arg(long, value_enum, default_value = "ordered")]
    pub(super) preset: PresetName,
    /// Use the first N records only
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<u64>,
    /// Most steps of each stage; 0 fits rotation and quantizer and trains nothing
    #[arg(long, default_value_t = 2_000)]
    pub(super) steps: usize,
    /// Most minutes
    #[arg(long, default_value_t = 5.0)]
    pub(super) minutes: f64,
    /// Seed of the split, the weights and the batches
    #[arg(long, default_value_t = 42)]
    pub(super) seed: u64,
    /// Couplings to try after the predictor
    #[arg(long)]
    pub(super) couplings: Option<usize>,
    /// Bound of the paper preset's scales, which has none as published and can diverge on little data
    #[arg(long, value_name = "BOUND")]
    pub(super) scale_clamp: Option<f32>,
    #[command(flatten)]
    pub(super) groups: Groups,
    /// Where to compute: cpu, ndarray or wgpu
    #[arg(long, default_value = "cpu")]
    pub(super) device: Device,
}

#[derive(Debug, Args)]
pub(super) struct Report {
    /// Records to train on (.npy, idx, idx.gz)
    #[arg(long)]
    pub(super) train: PathBuf,
    /// Records to judge by; without it every tenth of the training records is set aside
    #[arg(long)]
    pub(super) heldout: Option<PathBuf>,
    /// Bytes a record, one or several
    #[arg(long, value_delimiter = ',', default_value = "16,32,64")]
    pub(super) bytes: Vec<usize>,
    /// Folder for report.html, report.json and the pictures
    #[arg(long, default_value = "apcm-report")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) force: Force,
    /// Use the first N training records only
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<u64>,
    /// Most minutes for each size
    #[arg(long, default_value_t = 5.0)]
    pub(super) minutes: f64,
    /// Most steps of each stage; 0 trains no network
    #[arg(long, default_value_t = 2_000)]
    pub(super) steps: usize,
    /// Seed of the split, the weights and the batches
    #[arg(long, default_value_t = 42)]
    pub(super) seed: u64,
    #[command(flatten)]
    pub(super) groups: Groups,
    /// What nearness means
    #[arg(long, value_enum, default_value = "cosine")]
    pub(super) similarity: SimilarityName,
    /// Leave the autoencoder out: it takes a minute for each size
    #[arg(long)]
    pub(super) no_autoencoder: bool,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// File for the store
    pub(super) store: PathBuf,
    /// The codec that `apcm train` wrote
    #[arg(long)]
    pub(super) codec: PathBuf,
    /// How many slots
    #[arg(long)]
    pub(super) capacity: u32,
    /// What nearness means
    #[arg(long, value_enum, default_value = "cosine")]
    pub(super) similarity: SimilarityName,
    /// Most bytes of everything kept for the slots together; residuals leave first, memories last
    #[arg(long, value_name = "BYTES")]
    pub(super) byte_budget: Option<u64>,
    /// Who makes room once it is full: lfu, lfu-aged:HALF_LIFE, lru or fifo
    #[arg(long, default_value = "lfu")]
    pub(super) policy: Policy,
}

#[derive(Debug, Args)]
pub(super) struct ChangePolicy {
    /// The store
    pub(super) store: PathBuf,
    /// lfu (least frequently used), lfu-aged:HALF_LIFE (a use weighs half after so many reads and writes), lru (least
    /// recently used) or fifo (the oldest); without one, the store's is said
    pub(super) policy: Option<Policy>,
}

#[derive(Debug, Subcommand)]
pub(super) enum StreamCommand {
    /// Give a store the tree that folds its streams; `apcm train --sequence` makes one
    #[command(after_help = "Example:\n  apcm stream tree memory.apcm walks.tree")]
    Tree(StreamTree),
    /// Append the records of a file to a stream, in one durable transaction
    #[command(after_help = "Example:\n  apcm stream append memory.apcm session-7 states.npy")]
    Append(StreamAppend),
    /// Write records of a stream to a file; not counted as an access
    #[command(after_help = "Examples:\n  apcm stream recall memory.apcm session-7 --out all.npy\n  \
                            apcm stream recall memory.apcm session-7 --from 100 --to 132 --out some.npy")]
    Recall(StreamRecall),
    /// List all streams
    List(StreamList),
    /// Remove a stream
    Remove(StreamRemove),
}

#[derive(Debug, Args)]
pub(super) struct StreamTree {
    /// The store
    pub(super) store: PathBuf,
    /// The tree
    pub(super) tree: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct StreamAppend {
    /// The store
    pub(super) store: PathBuf,
    /// The stream's name
    pub(super) name: String,
    /// One record, or many along the first axis
    pub(super) data: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct StreamRecall {
    /// The store
    pub(super) store: PathBuf,
    /// The stream's name
    pub(super) name: String,
    /// The first record; with --to, every one in between must be there. Without both, all that is left
    #[arg(long, requires = "to")]
    pub(super) from: Option<u64>,
    /// One past the last record
    #[arg(long, requires = "from")]
    pub(super) to: Option<u64>,
    /// File for the records; who may read the store may read it
    #[arg(long)]
    pub(super) out: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct StreamList {
    /// The store
    pub(super) store: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct StreamRemove {
    /// The store
    pub(super) store: PathBuf,
    /// The stream's name
    pub(super) name: String,
}

#[derive(Debug, Args)]
pub(super) struct Ingest {
    /// The store
    pub(super) store: PathBuf,
    /// The dataset: .npy (f16, f32, f64, u8), idx or idx.gz
    pub(super) data: PathBuf,
    /// Keys: `row` for row numbers, or a field of the JSONL file
    #[arg(long)]
    pub(super) keys: Option<String>,
    /// JSONL file with one object a record (.gz too); its fields become metadata
    #[arg(long)]
    pub(super) metadata: Option<PathBuf>,
    /// Most records of a transaction
    #[arg(long, default_value_t = 1_024)]
    pub(super) batch: usize,
    /// Go on where an earlier run stopped
    #[arg(long)]
    pub(super) resume: bool,
    #[command(flatten)]
    pub(super) tier: Tier,
}

#[derive(Debug, Args)]
pub(super) struct Attributes {
    /// Metadata, a JSON object
    #[arg(long, value_name = "JSON")]
    pub(super) metadata: Option<String>,
    /// Never a victim
    #[arg(long)]
    pub(super) pin: bool,
    /// Seconds until it counts as free
    #[arg(long, value_name = "SECONDS")]
    pub(super) ttl: Option<u64>,
    #[command(flatten)]
    pub(super) tier: Tier,
}

#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Tier {
    /// Keep it with at most this error, mean squared per element, whatever that takes
    #[arg(long, value_name = "ERROR", conflicts_with = "lossless")]
    pub(super) max_error: Option<f32>,
    /// Keep it to the bit
    #[arg(long)]
    pub(super) lossless: bool,
}

impl From<Tier> for crate::Fidelity {
    fn from(tier: Tier) -> Self {
        match tier.max_error {
            Some(error) => Self::Bounded(error),
            None if tier.lossless => Self::Lossless,
            None => Self::Compact,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Insert {
    /// The store
    pub(super) store: PathBuf,
    /// One record, or many along the first axis
    pub(super) data: PathBuf,
    #[command(flatten)]
    pub(super) attributes: Attributes,
}

#[derive(Debug, Args)]
pub(super) struct Put {
    /// The store
    pub(super) store: PathBuf,
    /// The key
    pub(super) key: String,
    /// The record
    pub(super) data: PathBuf,
    #[command(flatten)]
    pub(super) attributes: Attributes,
}

#[derive(Debug, Args)]
pub(super) struct Get {
    /// The store
    pub(super) store: PathBuf,
    /// The key
    pub(super) key: String,
    /// File for the record, .npy; who may read the store may read it
    #[arg(long)]
    pub(super) out: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The store
    pub(super) store: PathBuf,
    /// The key
    pub(super) key: String,
}

#[derive(Debug, Args)]
pub(super) struct Pin {
    /// The store
    pub(super) store: PathBuf,
    /// The key
    pub(super) key: String,
    /// Unpin
    #[arg(long)]
    pub(super) off: bool,
}

#[derive(Debug, Args)]
pub(super) struct Search {
    /// The store
    pub(super) store: PathBuf,
    /// One query, or many along the first axis
    #[arg(long)]
    pub(super) queries: PathBuf,
    /// How many hits
    #[arg(long, default_value_t = 10)]
    pub(super) k: usize,
    /// Least cosine of a hit
    #[arg(long, allow_negative_numbers = true)]
    pub(super) min_similarity: Option<f32>,
    /// Largest measured error of a hit, mean squared per element
    #[arg(long)]
    pub(super) max_error: Option<f32>,
    /// Condition on metadata, such as: kind = 'note' and year >= 2025
    #[arg(long)]
    pub(super) filter: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// The store
    pub(super) store: PathBuf,
    /// Condition on metadata
    #[arg(long)]
    pub(super) filter: Option<String>,
    /// Most memories to list
    #[arg(long)]
    pub(super) limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The store
    pub(super) store: PathBuf,
    /// Folder for records.npy and records.jsonl; who may read the store may read them
    #[arg(long)]
    pub(super) out: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Recode {
    /// The store
    pub(super) store: PathBuf,
    /// The codec that `apcm train` wrote
    #[arg(long)]
    pub(super) codec: PathBuf,
    /// File for the new store; without it the new store takes the old one's place when all is there
    #[arg(long)]
    pub(super) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Stats {
    /// The store
    pub(super) store: PathBuf,
    /// Open the store for writing first: recovers a file that was not closed cleanly
    #[arg(long)]
    pub(super) recover: bool,
}

pub(super) fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "apcm", &mut script);
    super::output::print(&script)
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The store
    pub(super) store: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Compact {
    /// The store
    pub(super) store: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Repair {
    /// The store
    pub(super) store: PathBuf,
    /// Do what was said
    #[arg(long)]
    pub(super) apply: bool,
}

#[derive(Debug, Args)]
pub(super) struct Unpack {
    /// The pack
    pub(super) pack: PathBuf,
    /// File for the new store; it must not be there
    #[arg(long, required_unless_present = "into", conflicts_with = "into")]
    pub(super) out: Option<PathBuf>,
    /// Store to put the memories into, as if they were written now
    #[arg(long)]
    pub(super) into: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct CopyTo {
    /// The store
    pub(super) store: PathBuf,
    /// File for the copy; it must not be there
    #[arg(long)]
    pub(super) out: PathBuf,
}
