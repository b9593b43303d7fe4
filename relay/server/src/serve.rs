use crate::commands::CommandError;
use crate::config::Config;
pub(crate) async fn run(config: Config) -> Result<(), CommandError> {
    let _ = config;
    Ok(())
}
