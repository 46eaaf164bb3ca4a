//! The lines' way out: those of requests that are answered at the same time leave in one write.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Where lines go, and which have gone. They are numbered from 1.
pub(crate) struct Outlet {
    writer: Mutex<Writer>,
    /// The last that was tried.
    tried: AtomicU64,
    /// The last that failed. Those before it may have failed too.
    failed: AtomicU64,
}

struct Writer {
    output: Box<dyn Write + Send>,
    buffer: Vec<u8>,
    /// Whether the last line may have been written in part.
    is_torn: bool,
    /// The last line of those that are being written. Left behind by a panic.
    writing: u64,
}

/// What became of a line.
pub(crate) enum Out {
    /// It is there.
    Yes,
    /// It was tried before, and may not be there.
    No,
    /// It was tried just now, with others perhaps.
    Tried(io::Result<()>),
}

impl Outlet {
    pub(crate) fn new(output: Box<dyn Write + Send>) -> Self {
        Self {
            writer: Mutex::new(Writer {
                output,
                buffer: Vec::new(),
                is_torn: false,
                writing: 0,
            }),
            tried: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Writes all lines there are, unless this one was tried already. `take` swaps them for an empty buffer and gives
    /// the number of the last.
    pub(crate) fn write_up_to(&self, line: u64, take: impl FnOnce(&mut Vec<u8>) -> u64) -> Out {
        if let Some(out) = self.was_tried(line) {
            return out;
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // What a panic left behind was tried, and is not there for sure.
        self.failed.fetch_max(writer.writing, Ordering::Release);
        self.tried.fetch_max(writer.writing, Ordering::Release);
        if let Some(out) = self.was_tried(line) {
            return out;
        }
        writer.buffer.clear();
        let last = take(&mut writer.buffer);
        writer.writing = last;
        let written = writer.write();
        writer.writing = 0;
        if written.is_err() {
            self.failed.store(last, Ordering::Release);
        }
        self.tried.store(last, Ordering::Release);
        Out::Tried(written)
    }

    fn was_tried(&self, line: u64) -> Option<Out> {
        let is_tried = self.tried.load(Ordering::Acquire) >= line;
        is_tried.then(|| {
            if line > self.failed.load(Ordering::Acquire) {
                Out::Yes
            } else {
                Out::No
            }
        })
    }
}

impl Writer {
    fn write(&mut self) -> io::Result<()> {
        if self.is_torn {
            self.buffer.insert(0, b'\n');
        }
        self.is_torn = true;
        self.output.write_all(&self.buffer)?;
        self.output.flush()?;
        self.is_torn = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;

    use super::*;

    /// Panics amid the first write.
    #[derive(Clone, Default)]
    struct Panics(Arc<Mutex<Vec<u8>>>);

    impl Write for Panics {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(!text.is_empty() || text.write(b"o").is_err(), "amid a line");
            text.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_a_panic_cut_off_do_not_count_as_written() {
        let output = Panics::default();
        let outlet = Outlet::new(Box::new(output.clone()));
        let write = |line, text: &'static [u8], last| {
            outlet.write_up_to(line, |buffer| {
                buffer.extend_from_slice(text);
                last
            })
        };
        let cut_off = AssertUnwindSafe(|| write(1, b"one\ntwo\n", 2));
        assert!(catch_unwind(cut_off).is_err());
        assert!(matches!(write(2, b"", 2), Out::No), "the second was in it");
        assert!(matches!(write(3, b"three\n", 3), Out::Tried(Ok(()))));
        assert!(matches!(write(3, b"", 3), Out::Yes));
        assert!(matches!(write(1, b"", 3), Out::No));
        assert_eq!(
            *output.0.lock().unwrap_or_else(PoisonError::into_inner),
            b"o\nthree\n"
        );
    }
}
