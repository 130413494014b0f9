//! What is kept of a process's two outputs, and who has had what of it.
//!
//! ```text
//!            start                     floor                  written
//!   gone       │  may make room          │  must be kept        │
//!   ───────────┼─────────────────────────┼──────────────────────┤  ◀── the process writes here
//! ```
//!
//! A byte's place is its number in all that was written to its output. What is kept of both outputs has one bound
//! together. A byte is *taken* when it was handed to the stream of an attached call, and no call that is attached now
//! still has to get it; the floor is the place of the first byte that is not taken. When the bound is reached:
//!
//! | [`Full`] | what happens |
//! |---|---|
//! | `Hold` | the oldest taken bytes make room; are there none, the pipe is not read, and so the process is held up |
//! | `DropOldest` | the oldest bytes make room, taken or not; who has missed some is told how many |
//! | `DropNewest` | new bytes are counted and thrown away (the bound is one for each output then) |
//!
//! Room is made in the output that has more bytes to give.
//!
//! When the last call leaves, what it was handed last may never have arrived: up to [`MAX_UNSURE_OUTPUT`] bytes of it,
//! and not more than half the bound, count as not taken again.

use std::collections::{BTreeMap, VecDeque};

use crate::limits::MAX_UNSURE_OUTPUT;

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout = 0,
    Stderr = 1,
}

impl Output {
    const BOTH: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// Its name in a sentence.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Stdout => Self::Stderr,
            Self::Stderr => Self::Stdout,
        }
    }
}

/// What to do when the bound is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Hold,
    DropOldest,
    DropNewest,
}

/// One who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReaderId(u64);

/// A piece of an output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) output: Output,
    /// The place of the first byte.
    pub(crate) offset: u64,
    pub(crate) data: Vec<u8>,
    /// Bytes before it that this reader will never get.
    pub(crate) dropped: u64,
}

/// Why a reader can't begin where it wants to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AttachError {
    /// The bytes are not kept any more; this is the first that is.
    Lost(Output, u64),
    /// So many were written, and fewer than wanted.
    Ahead(Output, u64),
}

/// Both outputs.
#[derive(Debug)]
pub(crate) struct Ring {
    outputs: [Kept; 2],
    capacity: usize,
    full: Full,
    readers: BTreeMap<ReaderId, Reader>,
    next_reader: u64,
}

/// What is kept of one output.
#[derive(Debug, Default)]
struct Kept {
    bytes: VecDeque<u8>,
    /// The place of the first of them.
    start: u64,
    /// The floor while nobody is attached.
    taken: u64,
    /// Bytes after them that were thrown away.
    cut: u64,
}

#[derive(Debug)]
struct Reader {
    positions: [u64; 2],
    /// The output that is looked at first, so that neither starves the other.
    first: Output,
}

impl Ring {
    pub(crate) fn new(capacity: usize, full: Full) -> Self {
        Self {
            outputs: Default::default(),
            capacity,
            full,
            readers: BTreeMap::new(),
            next_reader: 0,
        }
    }

    /// Bytes that may be pushed now; none means that the process is to be held up.
    pub(crate) fn room(&self) -> usize {
        match self.full {
            Full::DropNewest => usize::MAX,
            Full::DropOldest => self.capacity,
            Full::Hold => {
                let free = self.capacity.saturating_sub(self.len());
                Output::BOTH
                    .iter()
                    .fold(free, |room, output| room + self.spare(*output))
            }
        }
    }

    /// Adds bytes. More than there is room for stay beyond the bound, if the ring holds.
    pub(crate) fn push(&mut self, output: Output, bytes: &[u8]) {
        let kept = match self.full {
            Full::DropNewest => {
                let room = self.capacity.saturating_sub(self.kept(output).bytes.len());
                bytes.get(..room).unwrap_or(bytes)
            }
            Full::Hold | Full::DropOldest => {
                let excess = (self.len() + bytes.len()).saturating_sub(self.capacity);
                self.make_room(excess);
                bytes
            }
        };
        let own = &mut self.outputs[output as usize];
        own.bytes.extend(kept);
        own.cut += len(bytes) - len(kept);
    }

    /// Lets another read, from these places on or from the first bytes that there are.
    pub(crate) fn attach(&mut self, from: [Option<u64>; 2]) -> Result<ReaderId, AttachError> {
        let mut positions = [0; 2];
        for output in Output::BOTH {
            let kept = self.kept(output);
            let position = from[output as usize].unwrap_or(kept.start);
            if position < kept.start {
                return Err(AttachError::Lost(output, kept.start));
            }
            if position > kept.written() {
                return Err(AttachError::Ahead(output, kept.written()));
            }
            positions[output as usize] = position;
        }
        let id = ReaderId(self.next_reader);
        self.next_reader += 1;
        let first = Output::Stdout;
        self.readers.insert(id, Reader { positions, first });
        Ok(id)
    }

    /// The next bytes for a reader, `most` of them at most; none if it has had all that there are.
    pub(crate) fn next(&mut self, id: ReaderId, most: usize) -> Option<Piece> {
        let reader = self.readers.get_mut(&id)?;
        for output in [reader.first, reader.first.other()] {
            let kept = &self.outputs[output as usize];
            let position = &mut reader.positions[output as usize];
            if *position >= kept.end() {
                continue;
            }
            let dropped = kept.start.saturating_sub(*position);
            let offset = kept.start.max(*position);
            let data = kept.copy(offset, most);
            *position = offset + len(&data);
            reader.first = output.other();
            return Some(Piece {
                output,
                offset,
                data,
                dropped,
            });
        }
        None
    }

    /// After the end: what was thrown away behind the last byte that is kept, as an empty piece.
    pub(crate) fn next_cut(&mut self, id: ReaderId) -> Option<Piece> {
        let reader = self.readers.get_mut(&id)?;
        Output::BOTH.into_iter().find_map(|output| {
            let kept = &self.outputs[output as usize];
            let position = &mut reader.positions[output as usize];
            let dropped = kept.written().saturating_sub(*position);
            *position = kept.written().max(*position);
            (dropped > 0).then(|| Piece {
                output,
                offset: kept.written(),
                data: Vec::new(),
                dropped,
            })
        })
    }

    /// A reader has gone; `complete` if it is known to have all that it was handed.
    pub(crate) fn detach(&mut self, id: ReaderId, complete: bool) {
        let Some(reader) = self.readers.remove(&id) else {
            return;
        };
        if !self.readers.is_empty() {
            return;
        }
        let unsure = match complete {
            true => 0,
            false => MAX_UNSURE_OUTPUT.min(self.capacity / 2),
        };
        let mut unsure = u64::try_from(unsure).unwrap_or(u64::MAX);
        for (kept, position) in self.outputs.iter_mut().zip(reader.positions) {
            let sure = position.saturating_sub(unsure).max(kept.start);
            unsure -= position.saturating_sub(sure).min(unsure);
            kept.taken = sure;
        }
    }

    /// Calls that read now.
    pub(crate) fn readers(&self) -> usize {
        self.readers.len()
    }

    /// Bytes that are kept.
    pub(crate) fn len(&self) -> usize {
        self.outputs.iter().map(|kept| kept.bytes.len()).sum()
    }

    /// Bytes that were written to an output.
    pub(crate) fn written(&self, output: Output) -> u64 {
        self.kept(output).written()
    }

    /// The place of the first byte of an output that is kept.
    pub(crate) fn kept_from(&self, output: Output) -> u64 {
        self.kept(output).start
    }

    /// All that is kept of an output, and how many bytes behind it were thrown away.
    pub(crate) fn contents(&self, output: Output) -> (Vec<u8>, u64) {
        let kept = self.kept(output);
        (kept.copy(kept.start, usize::MAX), kept.cut)
    }

    /// Gives back memory that is not needed when nothing more is written.
    pub(crate) fn shrink(&mut self) {
        for kept in &mut self.outputs {
            kept.bytes.shrink_to_fit();
        }
    }

    fn kept(&self, output: Output) -> &Kept {
        &self.outputs[output as usize]
    }

    fn floor(&self, output: Output) -> u64 {
        self.readers
            .values()
            .map(|reader| reader.positions[output as usize])
            .min()
            .unwrap_or(self.kept(output).taken)
    }

    /// Bytes of an output that may make room.
    fn spare(&self, output: Output) -> usize {
        let kept = self.kept(output);
        match self.full {
            Full::DropOldest => kept.bytes.len(),
            Full::DropNewest => 0,
            Full::Hold => usize::try_from(self.floor(output).saturating_sub(kept.start))
                .unwrap_or(usize::MAX)
                .min(kept.bytes.len()),
        }
    }

    fn make_room(&mut self, mut bytes: usize) {
        let [one, other] = Output::BOTH;
        let order = match self.spare(one) >= self.spare(other) {
            true => [one, other],
            false => [other, one],
        };
        for output in order {
            let give = bytes.min(self.spare(output));
            let kept = &mut self.outputs[output as usize];
            kept.bytes.drain(..give);
            kept.start += u64::try_from(give).unwrap_or(u64::MAX);
            bytes -= give;
        }
    }
}

impl Kept {
    fn end(&self) -> u64 {
        self.start + u64::try_from(self.bytes.len()).unwrap_or(u64::MAX)
    }

    fn written(&self) -> u64 {
        self.end() + self.cut
    }

    /// Up to `most` bytes from the place `offset` on, which is one that is kept.
    fn copy(&self, offset: u64, most: usize) -> Vec<u8> {
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let to = from.saturating_add(most).min(self.bytes.len());
        let (front, back) = self.bytes.as_slices();
        let part = |slice: &[u8], from: usize, to: usize| {
            let slice = slice.get(..to.min(slice.len())).unwrap_or_default();
            slice.get(from..).unwrap_or_default().to_vec()
        };
        let mut data = part(front, from, to);
        data.extend(part(
            back,
            from.saturating_sub(front.len()),
            to.saturating_sub(front.len()),
        ));
        data
    }
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
