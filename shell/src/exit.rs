//! What an exit code says (DESIGN §12); the numbers are those of sysexits(3) where that has one.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed: trying again in the same way will fail again.
    Failed,
    /// Wrong use: the command line or the configuration (clap's own exit code, too).
    WrongUse,
    /// Try again: something that is needed is not there now (`EX_TEMPFAIL`).
    TryAgain,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::WrongUse => 2,
            Exit::TryAgain => 75,
        })
    }
}
