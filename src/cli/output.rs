//! What commands print to. It owns what a closed pipe or a full disk means, so that no command has
//! to. It knows nothing of what is printed.

use std::io::{self, Write};

/// An output whose reader may leave: `priorgate status | head -1` is no error, and must not change
/// what the command found out or did. Any other failure is kept for the exit code.
#[derive(Debug)]
pub(super) struct Output<W> {
    out: W,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    ReaderGone,
    Failed(io::Error),
}

impl<W: Write> Output<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            state: State::Open,
        }
    }

    /// Flushes. Gives the failure that cut the output short, if it was not just its reader leaving.
    pub(super) fn finish(mut self) -> Option<io::Error> {
        // `flush` of an `Output` keeps its errors instead of giving them.
        let _ = self.flush();
        match self.state {
            State::Open | State::ReaderGone => None,
            State::Failed(error) => Some(error),
        }
    }

    fn attempt(&mut self, write: impl FnOnce(&mut W) -> io::Result<()>) {
        if matches!(self.state, State::Open)
            && let Err(error) = write(&mut self.out)
        {
            self.state = match error.kind() {
                io::ErrorKind::BrokenPipe => State::ReaderGone,
                _ => State::Failed(error),
            };
        }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(|out| out.write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(Write::flush);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_leaves_is_no_failure() {
        let mut output = Output::new(Failing(io::ErrorKind::BrokenPipe));
        for _ in 0..2 {
            writeln!(output, "nobody reads this").unwrap();
        }
        assert!(output.finish().is_none());
    }

    #[test]
    fn a_full_disk_is_one() {
        let mut output = Output::new(Failing(io::ErrorKind::StorageFull));
        writeln!(output, "lost").unwrap();
        assert_eq!(output.finish().unwrap().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn text_passes_through() {
        let mut text = Vec::new();
        let mut output = Output::new(&mut text);
        write!(output, "kept").unwrap();
        assert!(output.finish().is_none());
        assert_eq!(text, b"kept");
    }
}
