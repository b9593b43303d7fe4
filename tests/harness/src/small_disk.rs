//! A small disk of its own, within [`isolated`](crate::isolated): it fills, and can be made larger.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::isolated::command;

/// A disk in memory (tmpfs). It is gone with the test.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// A disk of `mib` MiB at `folder`, which is made.
    ///
    /// # Errors
    /// Where the kernel does not mount it.
    pub async fn mount(folder: &Path, mib: u32) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let disk = Self { folder: folder.to_owned() };
        command(&format!("mount -t tmpfs -o size={mib}m none {}", disk.text()?)).await?;
        Ok(disk)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes it `mib` MiB, with all that is on it.
    ///
    /// # Errors
    /// Where the kernel does not do it.
    pub async fn resize(&self, mib: u32) -> Result<()> {
        command(&format!("mount -o remount,size={mib}m {}", self.text()?)).await
    }

    fn text(&self) -> Result<&str> {
        self.folder.to_str().context("a folder whose name is no UTF-8")
    }
}
