//! Garage: a real S3 server, small enough for a test. Run as a program of its own, never linked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{As, Foreground, folders, free_address};

/// A Garage with one node, one bucket and one key.
#[derive(Debug)]
pub struct Garage {
    /// Where it speaks S3.
    pub address: SocketAddr,
    folder: PathBuf,
    process: Option<Foreground>,
}

impl Garage {
    /// Its one bucket.
    pub const BUCKET: &str = "mail";
    /// Its region.
    pub const REGION: &str = "garage";
    /// The name of its one key.
    pub const KEY_ID: &str = "GK0123456789abcdef01234567";
    /// The secret of its one key.
    pub const SECRET: &str = "1799bccfd7411eddcf9ebd316bc1f5287ad12a68094e1c6ac6abde7e6feae1ec";

    /// Starts one in `folder`.
    ///
    /// # Errors
    /// Where it is not installed (tests/run installs it) or does not start: with its log.
    pub async fn start(folder: &Path) -> Result<Self> {
        folders(folder, &["meta", "data"])?;
        let (address, rpc) = (free_address()?, free_address()?);
        let config = format!(
            "metadata_dir = \"{folder}/meta\"\ndata_dir = \"{folder}/data\"\ndb_engine = \"lmdb\"\n\
             replication_factor = 1\nrpc_bind_addr = \"{rpc}\"\nrpc_public_addr = \"{rpc}\"\nrpc_secret = \"{secret}\"\n\
             [s3_api]\ns3_region = \"{region}\"\napi_bind_addr = \"{address}\"\nroot_domain = \".s3.garage\"\n",
            folder = folder.display(),
            secret = Self::SECRET,
            region = Self::REGION,
        );
        std::fs::write(folder.join("garage.toml"), config)?;
        std::fs::write(
            folder.join("credentials"),
            format!("access_key_id = {}\nsecret_access_key = {}\n", Self::KEY_ID, Self::SECRET),
        )?;
        let mut garage = Self { address, folder: folder.to_owned(), process: None };
        garage.go_on().await?;
        Ok(garage)
    }

    /// Stops it; its data stays.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it again where it stopped.
    ///
    /// # Errors
    /// As [`Garage::start`].
    pub async fn go_on(&mut self) -> Result<()> {
        let program = program()?;
        let config = self.folder.join("garage.toml");
        let variables = [
            format!("GARAGE_DEFAULT_ACCESS_KEY={}", Self::KEY_ID),
            format!("GARAGE_DEFAULT_SECRET_KEY={}", Self::SECRET),
            format!("GARAGE_DEFAULT_BUCKET={}", Self::BUCKET),
        ];
        let text = |path: &Path| path.to_str().map(ToOwned::to_owned).context("a path that is no UTF-8");
        let mut command = vec!["env".to_owned()];
        command.extend(variables);
        command.extend([text(&program)?, "-c".to_owned(), text(&config)?]);
        command.extend(["server", "--single-node", "--default-bucket"].map(ToOwned::to_owned));
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let log = self.folder.join("garage.log");
        self.process =
            Some(Foreground::start(As::Caller, &command, "kill $child", &log, self.address).await?);
        Ok(())
    }

    /// The endpoint's URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// As a storage server's configuration names it (`[storage.object_store]`): segments are moved as soon as they are
    /// sealed.
    pub fn as_object_store(&self) -> Value {
        json!({
            "endpoint": self.endpoint(),
            "region": Self::REGION,
            "bucket": Self::BUCKET,
            "credentials_file": self.folder.join("credentials"),
            "allow_http": true,
            "after_days": 0,
        })
    }
}

/// Where tests/run put it: `LIGHTER_GARAGE` names another.
fn program() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let cached = cache.map(|cache| cache.join("lighter-ci/garage/bin/garage"));
    let program = variable("LIGHTER_GARAGE").or(cached).context("neither LIGHTER_GARAGE nor HOME is set")?;
    anyhow::ensure!(program.is_file(), "no Garage at {}: tests/run builds it", program.display());
    Ok(program)
}
