//! Standard output for a log, which must not wait for its reader.

use std::fs::File;
use std::io::{self, ErrorKind, Stdout, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

/// How long a reader may take before lines are left out, in seconds.
const TIMEOUT: i64 = 2;
/// A pipe with any room takes this many bytes at once.
const PIECE: usize = 4096;

/// Standard output that never waits for its reader. Lines that do not fit are left out, and a warning says so when
/// output can be written again. An operator who needs every line must read them; the table has the events anyway.
pub(crate) struct Output {
    out: Stdout,
    way: Way,
    /// How many lines were left out since output could last be written.
    left_out: usize,
    /// Whether the last line that was written is incomplete.
    is_amid: bool,
}

/// How output is written without waiting for its reader.
enum Way {
    /// To a file, which needs no reader.
    File,
    /// To a pipe, opened again as non-blocking: it takes what it has room for and says when it is full. Other processes
    /// that share the original descriptor still block.
    Pipe(File),
    /// To anything else, after polling each time for room.
    Asked,
}

impl Way {
    fn of(out: &Stdout) -> io::Result<Self> {
        let kind = File::from(out.as_fd().try_clone_to_owned()?)
            .metadata()?
            .file_type();
        if kind.is_file() {
            return Ok(Self::File);
        }
        if kind.is_fifo() {
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let pipe = rustix::fs::open("/proc/self/fd/1", flags, Mode::empty())?;
            return Ok(Self::Pipe(pipe.into()));
        }
        Ok(Self::Asked)
    }
}

impl Output {
    pub(crate) fn new() -> Self {
        let out = io::stdout();
        Self {
            // A system may lack this path, or forbid it.
            way: Way::of(&out).unwrap_or(Way::Asked),
            out,
            left_out: 0,
            is_amid: false,
        }
    }

    /// Whether output can be written, at once or within [`TIMEOUT`]. It does not wait again while lines are left out.
    fn is_ready(&self) -> io::Result<bool> {
        let timeout = Timespec {
            tv_sec: if self.left_out > 0 { 0 } else { TIMEOUT },
            tv_nsec: 0,
        };
        let mut out = [PollFd::new(&self.out, PollFlags::OUT)];
        Ok(poll(&mut out, Some(&timeout))? > 0)
    }

    /// Writes what there is room for; returns `None` when nobody reads.
    fn write_what_fits(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        // The lock keeps this process's other output from coming in between.
        let mut out = self.out.lock();
        match &self.way {
            Way::File => {
                let written = out.write(bytes)?;
                out.flush()?;
                Ok(Some(written))
            }
            Way::Pipe(pipe) => loop {
                let mut pipe: &File = pipe;
                match pipe.write(bytes) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    written => return written.map(Some),
                }
                if !self.is_ready()? {
                    return Ok(None);
                }
            },
            Way::Asked => {
                if !self.is_ready()? {
                    return Ok(None);
                }
                let written = out.write(bytes.get(..PIECE).unwrap_or(bytes))?;
                out.flush()?;
                Ok(Some(written))
            }
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left_out > 0 && self.is_ready()? {
            let left_out = std::mem::take(&mut self.left_out);
            if std::mem::take(&mut self.is_amid) {
                self.out.write_all(b"\n")?;
            }
            tracing::warn!(
                left_out,
                "nobody read standard output for a while: lines of the audit log are not on it"
            );
        }
        let written = match self.left_out {
            0 => self.write_what_fits(bytes)?,
            _ => None,
        };
        let Some(written) = written else {
            self.left_out += bytes.iter().filter(|byte| **byte == b'\n').count();
            return Ok(bytes.len());
        };
        let end = bytes.get(..written).and_then(<[u8]>::last);
        self.is_amid = end.is_some_and(|byte| *byte != b'\n');
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
