//! What happened, step by step: shown while it happens, printed as a table or as JSON at the end.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

/// One step that was verified, or was not.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Step {
    /// What happened.
    step: String,
    /// Milliseconds that it took.
    ms: u64,
    /// Bytes that it moved or looked at; 0 where that says nothing.
    bytes: u64,
    /// Whether what it claims was checked and found true.
    verified: bool,
    /// What was seen.
    detail: String,
}

/// All steps so far.
#[derive(Debug)]
pub(crate) struct Table {
    json: bool,
    began: Instant,
    steps: Vec<Step>,
}

impl Table {
    /// An empty table; steps are timed from now on.
    pub(crate) fn new(json: bool) -> Self {
        Self { json, began: Instant::now(), steps: Vec::new() }
    }

    /// The next step begins now.
    pub(crate) fn begin(&mut self, what: &str) {
        self.began = Instant::now();
        if !self.json {
            eprintln!("… {what}");
        }
    }

    /// The step that began last has ended.
    pub(crate) fn end(&mut self, step: &str, bytes: u64, verified: bool, detail: String) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.steps.push(Step { step: step.to_owned(), ms, bytes, verified, detail });
    }

    /// Whether there is a step, and every one was verified.
    pub(crate) fn all_verified(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|step| step.verified)
    }

    /// Prints it on standard output.
    #[expect(clippy::print_stdout, reason = "the table is what the command is for")]
    pub(crate) fn print(&self) -> Result<()> {
        if self.json {
            println!("{}", serde_json::to_string_pretty(&self.steps)?);
            return Ok(());
        }
        println!("\n{:<50} {:>9} {:>14}  {:<4} what was seen", "step", "time", "bytes", "ok");
        for step in &self.steps {
            let time = seconds(Duration::from_millis(step.ms));
            let bytes = if step.bytes == 0 { String::new() } else { grouped(step.bytes) };
            let ok = if step.verified { "yes" } else { "NO" };
            println!("{:<50} {time:>9} {bytes:>14}  {ok:<4} {}", step.step, step.detail);
        }
        Ok(())
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.3} s", duration.as_secs_f64())
}

/// `25000000` as `25 000 000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_000), "1 000");
        assert_eq!(grouped(25_000_000), "25 000 000");
    }

    #[test]
    fn one_step_that_was_not_verified_spoils_the_whole() {
        let mut table = Table::new(true);
        assert!(!table.all_verified());
        table.end("one", 0, true, String::new());
        assert!(table.all_verified());
        table.end("two", 0, false, String::new());
        assert!(!table.all_verified());
    }
}
