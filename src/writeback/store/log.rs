//! One file of the journal: read, appended to, and written anew without its garbage.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{
    error::{StoreError, failed},
    folder,
    frame::{FILE_HEAD, FRAME_HEAD, Item, close_frame, file_head},
    live::Live,
    reader::{Frames, was_synced},
};

/// A frame's buffer that is kept for the next one, in bytes.
const KEPT: usize = 256 << 10;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    salt: u32,
    /// The file's length, and how much of it is known to be on the disk itself.
    length: u64,
    synced: u64,
    live: Live,
    buffer: Vec<u8>,
}

impl Log {
    /// Reads the journal in a folder, and tells how much of its end is torn; nothing of the file is changed.
    pub fn read(folder: &Path) -> Result<Option<(Self, u64)>, StoreError> {
        let Some(salt) = folder::look(folder)? else { return Ok(None) };
        let path = folder::journal(folder);
        let file = OpenOptions::new().read(true).append(true).open(&path).map_err(failed("open", &path))?;
        let end = file.metadata().map_err(failed("read", &path))?.len();
        let mut live = Live::default();
        let length = each_item(&path, Frames::new(&file, salt, end), |item, at| {
            live.apply(item, at);
            Ok(())
        })?;
        if length < end && was_synced(&file, salt, length, end).map_err(failed("read", &path))? {
            let why = "what stood there had safely been written, and is not what was written";
            return Err(StoreError::Broken { file: path, at: length, why });
        }
        Ok(Some((Self { path, file, salt, length, synced: 0, live, buffer: Vec::new() }, end - length)))
    }

    /// Writes what is live of the old journal, if there is one, into a new file, which takes the old one's place.
    ///
    /// All of it is on the disk before the file gets its name, and the name is before anything is added; so whichever of the two a
    /// crash leaves holds everything that was committed.
    pub fn write(folder: &Path, old: Option<&Self>) -> Result<Self, StoreError> {
        let next = folder::next(folder);
        let written = Self::write_next(folder, &next, old);
        if written.is_err() {
            // It would take the room that the disk may be short of. If it stays, it is removed before the next is written.
            let _ = fs::remove_file(&next);
        }
        written
    }

    fn write_next(folder: &Path, next: &Path, old: Option<&Self>) -> Result<Self, StoreError> {
        let mut salt = [0; 4];
        rustix::rand::getrandom(&mut salt, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| failed("draw a random number for", next)(error.into()))?;
        match fs::remove_file(next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", next)(error));
            }
            _ => {}
        }
        let file = OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(next);
        let mut log = Self {
            path: folder::journal(folder),
            file: file.map_err(failed("create", next))?,
            salt: u32::from_le_bytes(salt),
            length: FILE_HEAD as u64,
            synced: 0,
            live: Live::default(),
            buffer: Vec::new(),
        };
        log.fill(old, next)?;
        log.file.sync_all().map_err(failed("sync", next))?;
        fs::rename(next, &log.path).map_err(failed("rename", next))?;
        folder::sync(folder)?;
        log.synced = log.length;
        Ok(log)
    }

    /// One frame for each item, so that damage can be told from a torn end.
    fn fill(&mut self, old: Option<&Self>, next: &Path) -> Result<(), StoreError> {
        let mut out = BufWriter::with_capacity(KEPT, &self.file);
        out.write_all(&file_head(self.salt)).map_err(failed("write", next))?;
        if let Some(old) = old {
            let (mut frame, salt) = (Vec::new(), self.salt);
            let (length, live) = (&mut self.length, &mut self.live);
            old.each_live(|item| {
                frame.clear();
                frame.resize(FRAME_HEAD, 0);
                item.write(&mut frame);
                close_frame(&mut frame, salt, *length, *length);
                live.apply(item, *length + FRAME_HEAD as u64);
                *length += frame.len() as u64;
                out.write_all(&frame).map_err(failed("write", next))
            })?;
        }
        out.flush().map_err(failed("write", next))
    }

    /// Drops a torn end, and goes on with the file.
    pub fn cut(mut self) -> Result<Self, StoreError> {
        self.file.set_len(self.length).map_err(failed("cut", &self.path))?;
        self.file.sync_all().map_err(failed("sync", &self.path))?;
        self.synced = self.length;
        Ok(self)
    }

    /// Tells all that is live, in the order of the file.
    pub fn each_live(
        &self,
        mut told: impl FnMut(&Item<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let frames = Frames::new(&self.file, self.salt, self.length);
        let end = each_item(
            &self.path,
            frames,
            |item, at| {
                if self.live.needs(item, at) { told(item) } else { Ok(()) }
            },
        )?;
        if end < self.length {
            let why = "it does not read as what was written";
            return Err(StoreError::Broken { file: self.path.clone(), at: end, why });
        }
        Ok(())
    }

    /// Hands one frame to the operating system. After an error the log is not to be used again.
    pub fn append<'a>(&mut self, items: impl Iterator<Item = Item<'a>>) -> Result<(), StoreError> {
        self.buffer.resize(FRAME_HEAD, 0);
        for item in items {
            self.live.apply(&item, self.length + self.buffer.len() as u64);
            item.write(&mut self.buffer);
        }
        close_frame(&mut self.buffer, self.salt, self.length, self.synced);
        self.file.write_all(&self.buffer).map_err(failed("write", &self.path))?;
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(KEPT);
        Ok(())
    }

    /// Waits until all of it is on the disk, under its name. After an error the log is not to be used again.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        if self.synced < self.length {
            self.file.sync_data().map_err(failed("sync", &self.path))?;
            self.synced = self.length;
        }
        match self.file.metadata().map_err(failed("look at", &self.path))?.nlink() {
            0 => {
                let removed = io::Error::new(io::ErrorKind::NotFound, "somebody has removed it");
                Err(failed("keep", &self.path)(removed))
            }
            _ => Ok(()),
        }
    }

    /// The file's length, in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What a new file would take, in bytes.
    pub fn live(&self) -> u64 {
        FILE_HEAD as u64 + self.live.bytes()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Tells all items of whole frames, and where these end.
fn each_item(
    path: &Path,
    frames: io::Result<Frames<'_>>,
    mut told: impl FnMut(&Item<'_>, u64) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let mut frames = frames.map_err(failed("read", path))?;
    loop {
        let at = frames.at();
        let Some(frame) = frames.next().map_err(failed("read", path))? else { return Ok(at) };
        if !frame.each(&mut told)? {
            let why = "it holds what no nearside of this format writes";
            return Err(StoreError::Broken { file: path.to_owned(), at, why });
        }
    }
}
