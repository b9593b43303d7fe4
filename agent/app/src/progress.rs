//! What `send` shows while it works: bars on a terminal, lines elsewhere, JSON lines for scripts.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use lighter_protocol::Mailbox;
use lighter_shell::Exit;

use crate::send::SendEvent;
use crate::views::{harmless, size, when};

/// Shows a message's way, and sums up how it ended.
#[derive(Debug)]
pub struct SendView {
    is_json: bool,
    /// Whether an agent runs, which goes on with what waits.
    is_running: bool,
    bars: Option<MultiProgress>,
    pulls: HashMap<Mailbox, Pull>,
    exit: Exit,
}

#[derive(Debug)]
struct Pull {
    bytes: u64,
    bar: Option<ProgressBar>,
}

impl SendView {
    /// A view of one message.
    pub fn new(is_json: bool, is_running: bool) -> Self {
        let bars = (!is_json && std::io::stderr().is_terminal())
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        Self { is_json, is_running, bars, pulls: HashMap::new(), exit: Exit::Done }
    }

    /// Shows what happened.
    pub fn show(&mut self, event: &SendEvent) {
        self.count(event);
        if self.is_json {
            if let Ok(line) = serde_json::to_string(event) {
                let _ = writeln!(std::io::stdout(), "{line}");
            }
            return;
        }
        match event {
            SendEvent::Reading => {}
            SendEvent::ToStore { recipient, bytes } => {
                let bar = self.bars.as_ref().map(|bars| bars.add(bar(recipient, *bytes)));
                self.pulls.insert(recipient.clone(), Pull { bytes: *bytes, bar });
                self.say(&format!("{recipient}: {} go to their store", size(*bytes)));
            }
            SendEvent::Kept { recipient, bytes, until, why } => {
                let bar = self.bars.as_ref().map(|bars| bars.add(bar(recipient, *bytes)));
                self.pulls.insert(recipient.clone(), Pull { bytes: *bytes, bar });
                self.say(&format!(
                    "{recipient}: {why}: {} wait here for it until {}, then the message goes whole by mail",
                    size(*bytes),
                    when(*until)
                ));
            }
            SendEvent::Dropped { recipient, bytes, .. } => {
                let bytes = size(*bytes);
                self.say(&format!(
                    "{recipient}: {bytes} are left, sealed, with their domain until their store comes"
                ));
            }
            SendEvent::Whole { recipient, why } => {
                self.say(&format!("{recipient}: goes whole by mail, because {why}"));
            }
            SendEvent::Mailed { recipient } => {
                self.say(&format!("{recipient}: the mail server has the message"));
            }
            SendEvent::Pulled { recipient, bytes } => {
                if let Some(Pull { bar: Some(bar), .. }) = self.pulls.get(recipient) {
                    bar.set_position(*bytes);
                }
            }
            SendEvent::Receipted { recipient } => {
                if let Some(Pull { bar: Some(bar), bytes }) = self.pulls.remove(recipient) {
                    bar.set_position(bytes);
                    bar.finish_and_clear();
                }
                self.say(&format!("{recipient}: their store has everything, receipted"));
            }
            SendEvent::Waiting { recipient, why } => {
                let next = if self.is_running {
                    "the running agent goes on when it is back"
                } else {
                    "leave `lighter-agent run` running: it goes on when it is back"
                };
                self.say(&format!("{recipient}: {why}; {next}"));
            }
            SendEvent::Failed { recipient, why, .. } => self.say(&format!("{recipient}: NOT SENT: {why}")),
        }
    }

    fn count(&mut self, event: &SendEvent) {
        let exit = match event {
            SendEvent::Failed { temporary: false, .. } => Exit::Failed,
            SendEvent::Failed { temporary: true, .. } => Exit::TryAgain,
            // Without an agent that goes on, it is not done.
            SendEvent::Waiting { .. } if !self.is_running => Exit::TryAgain,
            _ => return,
        };
        if self.exit != Exit::Failed {
            self.exit = exit;
        }
    }

    fn say(&self, line: &str) {
        let line = harmless(line);
        match &self.bars {
            Some(bars) => {
                let _ = bars.println(line);
            }
            None => {
                let _ = writeln!(std::io::stdout(), "{line}");
            }
        }
    }

    /// How the command ends.
    pub fn end(self) -> Exit {
        self.exit
    }
}

/// A bar where somebody sees it: on a terminal.
pub(crate) fn shown(bar: ProgressBar) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

/// A bar for one transfer.
pub(crate) fn bar(what: &impl std::fmt::Display, bytes: u64) -> ProgressBar {
    let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style).with_message(what.to_string())
}
