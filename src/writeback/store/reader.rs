//! Reads a journal's frames, in the order of the file.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
};

use super::frame::{FILE_HEAD, FRAME_HEAD, FrameHead, Item};

/// What is looked through at once behind a torn frame, in bytes.
const WINDOW: u64 = 1 << 20;

/// The frames of a file up to `end`, or up to the first that is not whole.
pub(super) struct Frames<'a> {
    file: BufReader<&'a File>,
    salt: u32,
    at: u64,
    end: u64,
    body: Vec<u8>,
}

/// One frame.
pub(super) struct Frame<'a> {
    /// Where its body stands.
    at: u64,
    body: &'a [u8],
}

impl<'a> Frames<'a> {
    pub fn new(mut file: &'a File, salt: u32, end: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(FILE_HEAD as u64))?;
        let file = BufReader::with_capacity(64 << 10, file);
        Ok(Self { file, salt, at: FILE_HEAD as u64, end, body: Vec::new() })
    }

    /// Where the next frame begins, and so where all that was read ends.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next frame; `None` at the end, and where none is whole.
    pub fn next(&mut self) -> io::Result<Option<Frame<'_>>> {
        let left = self.end - self.at;
        let mut head = [0; FRAME_HEAD];
        if left < FRAME_HEAD as u64 {
            return Ok(None);
        }
        self.file.read_exact(&mut head)?;
        let read = FrameHead::read(&head, self.salt, self.at);
        let Some(head) = read.filter(|head| head.length <= left - FRAME_HEAD as u64) else {
            return Ok(None);
        };
        self.body.clear();
        (&mut self.file).take(head.length).read_to_end(&mut self.body)?;
        if !head.is_of(&self.body, self.salt) {
            return Ok(None);
        }
        let at = self.at + FRAME_HEAD as u64;
        self.at = at + head.length;
        Ok(Some(Frame { at, body: &self.body }))
    }
}

impl Frame<'_> {
    /// Tells all its items and where they stand; false if it holds something else.
    pub fn each<E>(&self, mut told: impl FnMut(&Item<'_>, u64) -> Result<(), E>) -> Result<bool, E> {
        let mut rest = self.body;
        while !rest.is_empty() {
            let at = self.at + (self.body.len() - rest.len()) as u64;
            let Some(item) = Item::read(&mut rest) else { return Ok(false) };
            told(&item, at)?;
        }
        Ok(true)
    }
}

/// Whether something behind `torn` tells that what stands there had been synced.
///
/// Without a sync between them a machine may write the later of two frames and lose the earlier, so one that is whole behind `torn`
/// proves nothing by itself.
pub(super) fn was_synced(file: &File, salt: u32, torn: u64, end: u64) -> io::Result<bool> {
    let mut window = Vec::new();
    let mut from = torn + 1;
    while from + FRAME_HEAD as u64 <= end {
        let length = WINDOW.min(end - from);
        window.resize(length as usize, 0);
        file.read_exact_at(&mut window, from)?;
        for (at, head) in (from..).zip(window.windows(FRAME_HEAD)) {
            let Some(head) = head.first_chunk() else { break };
            if FrameHead::read(head, salt, at).is_some_and(|head| head.synced > torn) {
                return Ok(true);
            }
        }
        from += length - FRAME_HEAD as u64 + 1;
    }
    Ok(false)
}
