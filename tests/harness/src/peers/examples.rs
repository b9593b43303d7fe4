//! The examples of docs/OPERATING.md, for the tests to run: what an admin copies from there is what was tested.

use anyhow::{Context, Result};

const OPERATING: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/OPERATING.md"));

/// The code block that stands below `<!-- tested: NAME -->` in docs/OPERATING.md, with each of `changes` made: a port
/// that is the kernel's here, for one.
///
/// # Errors
/// Where there is no such block, or one of the changes has nothing to change in it.
pub fn example(name: &str, changes: &[(&str, &str)]) -> Result<String> {
    let mark = format!("<!-- tested: {name} -->");
    let (_, below) = OPERATING.split_once(&mark).with_context(|| format!("docs/OPERATING.md: no {mark}"))?;
    let block = below.split("```").nth(1).and_then(|block| block.split_once('\n'));
    let (_language, text) = block.with_context(|| format!("docs/OPERATING.md: no code below {mark}"))?;
    let mut text = text.to_owned();
    for (from, to) in changes {
        anyhow::ensure!(text.contains(from), "docs/OPERATING.md: no {from:?} in the code below {mark}");
        text = text.replace(from, to);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_that_is_not_there_is_an_error() {
        assert!(example("no such thing", &[]).is_err());
        assert!(example("postfix-lmtp-main", &[("no such text", "x")]).is_err());
        assert!(example("postfix-lmtp-main", &[]).unwrap().contains("lmtp_line_length_limit = 0\n"));
    }
}
