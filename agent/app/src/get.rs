//! `get`: an attachment from the own store, or else from the mail server by its ticket (SPEC A21, A22).

use lighter_shell::Exit;

use crate::cli::GetArgs;
use crate::config::Paths;
use crate::failure::Failure;

/// Gets.
pub async fn run(_args: GetArgs, _paths: &Paths, _is_json: bool) -> Result<Exit, Failure> {
    Err(Failure::failed("x"))
}
