//! What happens in a run: every step of its story and every log line of the code under test, with the simulation's time.
//! Each operation of a disk or a connection is a line, too; of those only a hash is printed, in the end.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Where the lines go.
#[derive(Clone, Default)]
pub(crate) struct Trace {
    hasher: Arc<Mutex<blake3::Hasher>>,
}

/// Where one line goes.
pub(crate) struct Line<'a> {
    trace: &'a Trace,
    is_printed: bool,
}

impl Trace {
    /// Does `work`, and takes down what happens in it.
    pub(crate) fn record<T>(&self, work: impl FnOnce() -> T) -> T {
        let lines = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_ansi(false)
            .with_timer(SimTime::default())
            .with_writer(self.clone());
        tracing::subscriber::with_default(lines.finish(), work)
    }

    /// A hash of all lines: two runs with the same one were the same to the last step.
    pub(crate) fn digest(&self) -> String {
        self.hasher().finalize().to_string()
    }

    fn hasher(&self) -> MutexGuard<'_, blake3::Hasher> {
        self.hasher.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.trace.hasher().update(line);
        if self.is_printed {
            io::stdout().write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Trace {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { trace: self, is_printed: true }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        Line { trace: self, is_printed: *meta.level() <= Level::DEBUG }
    }
}

/// Seconds since the simulation's first line.
#[derive(Default)]
struct SimTime {
    first: std::sync::OnceLock<Instant>,
}

impl FormatTime for SimTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        // Behind the simulation's end there is no time but the machine's.
        if tokio::runtime::Handle::try_current().is_err() {
            return write!(writer, "      end");
        }
        let now = Instant::now();
        let since = now.saturating_duration_since(*self.first.get_or_init(|| now));
        write!(writer, "{:>9.3}", since.as_secs_f64())
    }
}
