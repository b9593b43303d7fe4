//! Numbers in sentences for people.

use std::fmt::Display;

/// A count and what is counted: `1 delivery`, `0 deliveries`.
pub fn count<N: Copy + Display + PartialEq + From<u8>>(number: N, one: &str, more: &str) -> String {
    let what = if number == N::from(1) { one } else { more };
    format!("{number} {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_said_in_the_singular_and_none_in_the_plural() {
        let said = |number: u64| count(number, "delivery", "deliveries");
        assert_eq!(
            [0, 1, 2, 1_000].map(said),
            ["0 deliveries", "1 delivery", "2 deliveries", "1000 deliveries"]
        );
        assert_eq!(count(1_usize, "mailbox", "mailboxes"), "1 mailbox");
    }
}
