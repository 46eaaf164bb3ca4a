//! Standard output. One write takes the lines of all requests that are answered at the same time.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// The output, and which lines were written. They are numbered from 1.
pub(crate) struct AuditOutput {
    writer: Mutex<Writer>,
    /// The last line that was tried.
    tried: AtomicU64,
    /// The last line that failed. Those before it may have failed too.
    failed: AtomicU64,
}

struct Writer {
    output: Box<dyn Write + Send>,
    buffer: String,
    /// Whether the last line may have been written in part.
    is_torn: bool,
    /// The last line of the write that is running. After a panic it stays set; 0 when no write is running.
    writing: u64,
}

/// The result of writing a line.
pub(crate) enum Out {
    /// An earlier write wrote it.
    Yes,
    /// An earlier write tried it and may have failed.
    No,
    /// This call tried it, perhaps with other lines.
    Tried(io::Result<()>),
    /// Another request is writing.
    Busy,
}

impl AuditOutput {
    pub(crate) fn new(output: Box<dyn Write + Send>) -> Self {
        Self {
            writer: Mutex::new(Writer {
                output,
                buffer: String::new(),
                is_torn: false,
                writing: 0,
            }),
            tried: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Writes all queued lines, unless this one was tried already. `take` returns what to write and the number of its last
    /// line; `make` turns it into lines. Without `may_wait` this returns [`Out::Busy`] while another request writes.
    pub(crate) fn write_up_to<T>(
        &self,
        line: u64,
        may_wait: bool,
        take: impl FnOnce() -> (T, u64),
        make: impl FnOnce(T, &mut String),
    ) -> Out {
        if let Some(out) = self.was_tried(line) {
            return out;
        }
        let Some(mut writer) = self.writer(may_wait) else {
            return Out::Busy;
        };
        // After a panic in the middle of a write, its lines count as tried and failed.
        if writer.writing != 0 {
            self.failed.fetch_max(writer.writing, Ordering::Release);
            self.tried.fetch_max(writer.writing, Ordering::Release);
        }
        if let Some(out) = self.was_tried(line) {
            return out;
        }
        let (taken, last) = take();
        writer.writing = last;
        writer.buffer.clear();
        make(taken, &mut writer.buffer);
        let written = writer.write();
        writer.writing = 0;
        if written.is_err() {
            self.failed.store(last, Ordering::Release);
        }
        self.tried.store(last, Ordering::Release);
        Out::Tried(written)
    }

    fn writer(&self, may_wait: bool) -> Option<MutexGuard<'_, Writer>> {
        if may_wait {
            return Some(self.writer.lock().unwrap_or_else(PoisonError::into_inner));
        }
        match self.writer.try_lock() {
            Ok(writer) => Some(writer),
            Err(TryLockError::Poisoned(writer)) => Some(writer.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
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
            self.buffer.insert(0, '\n');
        }
        self.is_torn = true;
        self.output.write_all(self.buffer.as_bytes())?;
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

    /// Panics in the middle of the first write.
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
        let audit_output = AuditOutput::new(Box::new(output.clone()));
        let write = |line, text: &'static str, last| {
            let make = |text: &str, buffer: &mut String| buffer.push_str(text);
            audit_output.write_up_to(line, true, || (text, last), make)
        };
        let cut_off = AssertUnwindSafe(|| write(1, "one\ntwo\n", 2));
        assert!(catch_unwind(cut_off).is_err());
        assert!(matches!(write(2, "", 2), Out::No), "the second was in it");
        assert!(matches!(write(3, "three\n", 3), Out::Tried(Ok(()))));
        assert!(matches!(write(3, "", 3), Out::Yes));
        assert!(matches!(write(1, "", 3), Out::No));
        assert_eq!(
            *output.0.lock().unwrap_or_else(PoisonError::into_inner),
            b"o\nthree\n"
        );
    }

    #[test]
    fn lines_that_a_panic_kept_from_being_made_do_not_count_as_written() {
        let audit_output = AuditOutput::new(Box::new(io::sink()));
        let fails = AssertUnwindSafe(|| {
            audit_output.write_up_to(1, true, || ((), 2), |(), _| panic!("amid a line"));
        });
        assert!(catch_unwind(fails).is_err());
        let write = |line| audit_output.write_up_to(line, false, || ((), line), |(), _| ());
        assert!(matches!(write(2), Out::No));
        assert!(matches!(write(3), Out::Tried(Ok(()))));
    }

    #[test]
    fn write_that_may_not_wait_does_not() {
        let audit_output = AuditOutput::new(Box::new(io::sink()));
        let busy = audit_output.writer(true);
        assert!(matches!(
            audit_output.write_up_to(1, false, || ((), 1), |(), _| ()),
            Out::Busy
        ));
        drop(busy);
        assert!(matches!(
            audit_output.write_up_to(1, false, || ((), 1), |(), _| ()),
            Out::Tried(Ok(()))
        ));
    }
}
