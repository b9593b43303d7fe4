//! A real browser on the relay's pages: Chromium without a window, driven over its debugging pipe
//! (<https://chromedevtools.github.io/devtools-protocol/>): JSON messages, each ended by a NUL.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use data_encoding::BASE64;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long the browser may take for one step, its start included.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
/// The debugging pipe is its descriptors 3 and 4; it ends when the pipe does.
const START: &str = r#"exec chromium "$@" 3<&0 4>&1 </dev/null >/dev/null"#;

/// A browser with one page open. Dropped, it is ended.
#[derive(Debug)]
pub struct Browser {
    _process: Child,
    commands: ChildStdin,
    messages: BufReader<ChildStdout>,
    /// Events that came while something else was waited for: the browser's processes are not in step.
    passed: VecDeque<Value>,
    downloads: PathBuf,
    page: Option<String>,
    last_id: u64,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Width in CSS pixels: 360 is a phone, 1280 a desktop.
    pub width: u32,
    /// Height in CSS pixels.
    pub height: u32,
    /// Whether the person prefers dark pages.
    pub dark: bool,
}

impl Browser {
    /// Starts a browser that keeps everything in `folder`.
    ///
    /// # Errors
    /// Where it is not installed (tests/run installs it) or does not start.
    pub async fn start(folder: &Path) -> Result<Self> {
        let downloads = folder.join("downloads");
        std::fs::create_dir_all(&downloads)?;
        let profile = format!("--user-data-dir={}", folder.join("profile").display());
        let log = std::fs::File::create(folder.join("chromium.log"))?;
        let mut process = Command::new("sh")
            .args(["-c", START, "chromium", "--headless=new", "--remote-debugging-pipe", &profile])
            // Its sandbox does not start as root, nor its GPU process where there is none.
            .args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start sh")?;
        let commands = process.stdin.take().context("no standard input")?;
        let messages = BufReader::new(process.stdout.take().context("no standard output")?);
        let passed = VecDeque::new();
        let mut browser =
            Self { _process: process, commands, messages, passed, downloads, page: None, last_id: 0 };
        browser.open_page().await.context("chromium (tests/run installs it)")?;
        Ok(browser)
    }

    /// Goes to `url` and waits until it has been loaded.
    ///
    /// # Errors
    /// Where it cannot be.
    pub async fn go(&mut self, url: &str) -> Result<()> {
        self.passed.clear();
        let answer = self.command("Page.navigate", json!({ "url": url })).await?;
        if let Some(error) = answer.pointer("/errorText").and_then(Value::as_str) {
            bail!("{url}: {error}");
        }
        self.event("Page.loadEventFired", |_| true).await?;
        Ok(())
    }

    /// The value of an expression in the page, as a person with its developer tools gets it: not bound by its policy.
    ///
    /// # Errors
    /// Where it throws.
    pub async fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({ "expression": expression, "returnByValue": true });
        let answer = self.command("Runtime.evaluate", parameters).await?;
        if let Some(thrown) = answer.pointer("/exceptionDetails") {
            bail!("{expression}: {thrown}");
        }
        Ok(answer.pointer("/result/value").cloned().unwrap_or_default())
    }

    /// Clicks on what `selector` finds, and returns the file that is downloaded.
    ///
    /// # Errors
    /// Where there is nothing to click on, or no download ends well.
    pub async fn download(&mut self, selector: &str) -> Result<PathBuf> {
        self.passed.clear();
        self.evaluate(&format!("document.querySelector({}).click()", json!(selector))).await?;
        let begun = self.event("Browser.downloadWillBegin", |_| true).await?;
        let guid = begun.pointer("/guid").and_then(Value::as_str).context("no guid")?.to_owned();
        let ended = self
            .event("Browser.downloadProgress", |progress| {
                progress["guid"] == guid.as_str() && progress["state"] != "inProgress"
            })
            .await?;
        anyhow::ensure!(ended["state"] == "completed", "the download ended otherwise: {ended}");
        let name = begun.pointer("/suggestedFilename").and_then(Value::as_str).context("no name")?;
        Ok(self.downloads.join(name))
    }

    /// Looks at pages as `view` says from now on.
    ///
    /// # Errors
    /// Where it cannot.
    pub async fn look(&mut self, view: View) -> Result<()> {
        let View { width, height, dark } = view;
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.command("Emulation.setDeviceMetricsOverride", metrics).await?;
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.command("Emulation.setEmulatedMedia", media).await?;
        Ok(())
    }

    /// A picture of the page, PNG.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub async fn picture(&mut self) -> Result<Vec<u8>> {
        let answer = self.command("Page.captureScreenshot", json!({ "format": "png" })).await?;
        let data = answer.pointer("/data").and_then(Value::as_str).context("no picture")?;
        Ok(BASE64.decode(data.as_bytes())?)
    }

    async fn open_page(&mut self) -> Result<()> {
        let target = self.command("Target.createTarget", json!({ "url": "about:blank" })).await?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.command("Target.attachToTarget", attach).await?;
        let session = session.pointer("/sessionId").and_then(Value::as_str).context("no session")?;
        let allow = json!({ "behavior": "allow", "downloadPath": self.downloads, "eventsEnabled": true });
        let session = session.to_owned();
        self.command("Browser.setDownloadBehavior", allow).await?;
        self.page = Some(session);
        self.command("Page.enable", json!({})).await?;
        Ok(())
    }

    /// Sends a command to the page, or, before there is one, to the browser; its result.
    async fn command(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.last_id += 1;
        let mut message = json!({ "id": self.last_id, "method": method, "params": parameters });
        if let Some(page) = &self.page {
            message["sessionId"] = json!(page);
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.commands.write_all(&bytes).await?;
        let id = self.last_id;
        let mut answer =
            self.message(|message| message["id"] == id).await.with_context(|| method.to_owned())?;
        if let Some(error) = answer.get("error") {
            bail!("{method}: {error}");
        }
        Ok(answer["result"].take())
    }

    /// The parameters of the next event of this name that `matches`, since the last page or click.
    async fn event(&mut self, method: &str, matches: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = |message: &Value| message["method"] == method && matches(&message["params"]);
        let mut message = match self.passed.iter().position(found) {
            Some(position) => self.passed.remove(position).unwrap_or_default(),
            None => self.message(found).await.with_context(|| method.to_owned())?,
        };
        Ok(message["params"].take())
    }

    /// The next message that `matches`; events before it are kept.
    async fn message(&mut self, matches: impl Fn(&Value) -> bool) -> Result<Value> {
        let reading = async {
            loop {
                let mut bytes = Vec::new();
                if self.messages.read_until(0, &mut bytes).await? == 0 {
                    bail!("the browser has ended");
                }
                let message: Value = serde_json::from_slice(bytes.strip_suffix(&[0]).unwrap_or(&bytes))?;
                if matches(&message) {
                    return Ok(message);
                }
                if message.get("method").is_some() {
                    self.passed.push_back(message);
                }
            }
        };
        tokio::time::timeout(STEP_TIMEOUT, reading).await.context("the browser takes too long")?
    }
}
