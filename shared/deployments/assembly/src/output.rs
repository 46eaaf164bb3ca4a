//! Standard output, for a log that must not wait for whoever reads it.

use std::fs::File;
use std::io::{self, Stdout, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A reader may be this slow before it counts as one who does not read, in seconds.
const PATIENCE: i64 = 2;
/// A pipe that can be written at all takes so many bytes at once.
const PIECE: usize = 4096;

/// Standard output. When nobody reads it, nothing waits for that: what does not fit is left out, and said as soon as it can
/// be. Whoever needs every line reads them, and the table has the events all the same.
pub(crate) struct Output {
    out: Stdout,
    /// Whether it goes to a file, for which nobody has to read.
    is_file: bool,
    /// How many lines were left out since somebody read.
    left_out: usize,
    /// Whether a line has begun that was not ended.
    is_amid: bool,
}

impl Output {
    pub(crate) fn new() -> Self {
        let out = io::stdout();
        let same = out.as_fd().try_clone_to_owned().map(File::from);
        let kind = same.and_then(|same| same.metadata());
        Self {
            is_file: kind.is_ok_and(|kind| kind.is_file()),
            out,
            left_out: 0,
            is_amid: false,
        }
    }

    /// Whether something can be written at once, or after a while unless nobody has read for long.
    fn is_ready(&self) -> io::Result<bool> {
        if self.is_file {
            return Ok(true);
        }
        let patience = Timespec {
            tv_sec: if self.left_out > 0 { 0 } else { PATIENCE },
            tv_nsec: 0,
        };
        let mut out = [PollFd::new(&self.out, PollFlags::OUT)];
        Ok(poll(&mut out, Some(&patience))? > 0)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_ready()? {
            self.left_out += bytes.iter().filter(|byte| **byte == b'\n').count();
            return Ok(bytes.len());
        }
        if self.left_out > 0 {
            let left_out = std::mem::take(&mut self.left_out);
            if std::mem::take(&mut self.is_amid) {
                self.out.write_all(b"\n")?;
            }
            tracing::warn!(
                left_out,
                "nobody read standard output for a while: lines of the audit log are not on it"
            );
        }
        let piece = if self.is_file { bytes.len() } else { PIECE };
        let piece = bytes.get(..piece).unwrap_or(bytes);
        let written = self.out.write(piece)?;
        self.out.flush()?;
        let end = bytes.get(..written).and_then(<[u8]>::last);
        self.is_amid = end.is_some_and(|byte| *byte != b'\n');
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
