//! `lighter-relay keys`: who this relay is, the array key's way in and out, and its change.

use std::io::Read;
use std::path::Path;

use lighter_storage::ArrayKeys;
use lighter_transport::Identity;
use serde_json::json;

use super::{CommandError, ask, print};
use crate::cli::KeysCommand;
use crate::config::Config;
use crate::control::Question;
use crate::files::write_new;
use crate::layout;

/// Characters that an exported array key may have, blanks included: more is something else.
const KEY_TEXT_LEN_MAX: u64 = 1024;

pub(super) async fn run(config: &Config, command: &KeysCommand, json: bool) -> Result<(), CommandError> {
    match command {
        KeysCommand::Rotate => ask::show(&config.data, Question::Rotate, json).await,
        KeysCommand::Status => ask::show(&config.data, Question::Keys, json).await,
        KeysCommand::Id => print_ids(config, json),
        KeysCommand::Export => export(&config.data, json),
        KeysCommand::Import => import(&config.data, json),
    }
}

fn print_ids(config: &Config, json: bool) -> Result<(), CommandError> {
    let id = |path: &Path| -> Result<String, CommandError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| CommandError::failed(format!("making {}", folder.display()), error))?;
        }
        let identity =
            Identity::load_or_create(path).map_err(|error| CommandError::failed("reading a key", error))?;
        Ok(identity.peer().to_string())
    };
    let storage = layout::storage_servers(config);
    let storage: Vec<String> =
        storage.iter().map(|server| id(&layout::storage_key(server))).collect::<Result<_, _>>()?;
    print(&json!({ "relay": id(&layout::identity(&config.data))?, "storage": storage }), json);
    Ok(())
}

fn export(data: &Path, json: bool) -> Result<(), CommandError> {
    let path = layout::array_key(data);
    if !path.exists() {
        return Err(CommandError::Relay(
            "there is no array key yet: it is made at the first start".to_owned(),
        ));
    }
    let keys = load(&path)?;
    print(&json!({ "array_key": keys.export().as_str() }), json);
    let mark = layout::array_key_exported(data);
    std::fs::write(&mark, keys.fingerprint())
        .map_err(|error| CommandError::failed(format!("writing {}", mark.display()), error))
}

/// Whether `keys` were exported as they are. An empty mark is one of before array keys could be changed.
pub(crate) fn were_exported(data: &Path, keys: &ArrayKeys) -> bool {
    let mark = std::fs::read_to_string(layout::array_key_exported(data));
    mark.is_ok_and(|mark| mark == keys.fingerprint() || mark.is_empty() && keys.is_first())
}

fn import(data: &Path, json: bool) -> Result<(), CommandError> {
    let mut text = String::new();
    std::io::stdin()
        .take(KEY_TEXT_LEN_MAX)
        .read_to_string(&mut text)
        .map_err(|error| CommandError::failed("reading standard input", error))?;
    let text = text.trim().trim_start_matches("array_key:");
    let keys = ArrayKeys::import(text).map_err(|error| CommandError::failed("standard input", error))?;
    let path = layout::array_key(data);
    if path.exists() {
        if load(&path)?.fingerprint() == keys.fingerprint() {
            print(&json!({ "array_key": "already in place" }), json);
            return Ok(());
        }
        return Err(CommandError::Relay(format!(
            "{} holds a different key: what was stored under it would be lost; move it away by hand if you mean it",
            path.display()
        )));
    }
    std::fs::create_dir_all(data)
        .and_then(|()| write_new(&path, format!("{}\n", *keys.export()).as_bytes()))
        .map_err(|error| CommandError::failed(format!("writing {}", path.display()), error))?;
    print(&json!({ "array_key": "in place" }), json);
    Ok(())
}

fn load(path: &Path) -> Result<ArrayKeys, CommandError> {
    ArrayKeys::load(path).map_err(|error| CommandError::failed(path.display().to_string(), error))
}
