//! Writing a pack: sections side by side, memories as they come, checksums at the end.

use crate::error::{Error, Result};
use crate::index::ScanMatrix;
use apcm_format::pack::{BLOCK_LEN, DATA_START};
use apcm_format::{PackHeader, PackLayout, PackRow};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// One memory on its way into a pack: its values as they are in the store, their checksums with them.
pub(crate) struct Packed {
    /// What is known of it; where it will be is set when it is written.
    pub(crate) row: PackRow,
    /// Whether it has a key.
    pub(crate) keyed: bool,
    pub(crate) record: Vec<u8>,
    pub(crate) metadata: Vec<u8>,
    pub(crate) residual: Vec<u8>,
}

/// A pack being written into a new file.
pub(crate) struct Writer<'a> {
    file: &'a File,
    path: &'a Path,
    header: PackHeader,
    layout: PackLayout,
    /// Rows written.
    rows: u32,
    keys: Vec<u32>,
}

impl<'a> Writer<'a> {
    /// Begins a pack of `header.memories` memories; what the header says of their bytes and keys is set at the
    /// end.
    pub(crate) fn new(file: &'a File, path: &'a Path, header: PackHeader, image: &[u8]) -> Result<Self> {
        let header =
            PackHeader { keys: 0, codec_len: image.len() as u64, memories_len: 0, blocks_crc: 0, ..header };
        let layout = header.layout()?;
        let mut writer = Self { file, path, header, layout, rows: 0, keys: Vec::new() };
        writer.write(writer.layout.codec.start, image)?;
        Ok(writer)
    }

    /// Adds memories in the order of their slots, with their search vectors `[memory, dims]`.
    pub(crate) fn add(&mut self, batch: Vec<Packed>, vectors: &[f32]) -> Result<()> {
        let dims = self.header.search_dims as usize;
        let mut matrix = ScanMatrix::new(dims);
        for (row, vector) in (0..).zip(vectors.chunks_exact(dims)) {
            matrix.set(row, vector);
        }
        let view = matrix.view();
        let at = u64::from(self.rows);
        self.write(self.layout.scales.start + 4 * at, bytemuck::cast_slice(view.scales))?;
        self.write(self.layout.residuals.start + 4 * at, bytemuck::cast_slice(view.residuals))?;
        self.write(self.layout.integers.start + at * dims as u64, bytemuck::cast_slice(view.integers))?;
        self.write(self.layout.vectors.start + 4 * at * dims as u64, bytemuck::cast_slice(view.rows))?;
        let (mut rows, mut memories) = (Vec::new(), Vec::new());
        self.rows += batch.len() as u32;
        for packed in batch {
            let offset = self.header.memories_len + memories.len() as u64;
            rows.extend_from_slice(&PackRow { offset, ..packed.row }.encode());
            memories.extend_from_slice(&packed.record);
            memories.extend_from_slice(&packed.metadata);
            memories.extend_from_slice(&packed.residual);
        }
        let row_len = apcm_format::pack::ROW_LEN as u64;
        self.write(self.layout.rows.start + at * row_len, &rows)?;
        self.write(self.layout.memories.start + self.header.memories_len, &memories)?;
        self.header.memories_len += memories.len() as u64;
        Ok(())
    }

    /// Adds the row of the next key, in the order of the keys' bytes.
    pub(crate) fn key(&mut self, row: u32) {
        self.keys.push(row);
    }

    /// Writes keys, checksums and the header; gives the length of the file.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.header.keys = self.keys.len() as u32;
        let layout = self.header.layout()?;
        let keys: Vec<u8> = self.keys.iter().flat_map(|row| row.to_le_bytes()).collect();
        self.write(layout.keys.start, &keys)?;
        self.file.set_len(layout.len()).map_err(Error::io(self.path))?;
        // Read back from the file: what is summed is what will be read.
        let mut sums = Vec::with_capacity(4 * layout.block_count() as usize);
        let mut block = vec![0; BLOCK_LEN as usize];
        let mut file = self.file;
        file.seek(SeekFrom::Start(DATA_START)).map_err(Error::io(self.path))?;
        for number in 0..layout.block_count() {
            let range = layout.block(number);
            let block = &mut block[..(range.end - range.start) as usize];
            file.read_exact(block).map_err(Error::io(self.path))?;
            sums.extend_from_slice(&self.header.block_place(number).crc(&[block]).to_le_bytes());
        }
        self.write(layout.blocks.start, &sums)?;
        self.header.blocks_crc = self.header.blocks_place().crc(&[&sums]);
        let header = self.header.encode();
        self.write(0, &header)?;
        Ok(layout.len())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let mut file = self.file;
        file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(bytes)).map_err(Error::io(self.path))
    }
}
