//! Who learns of a recipient's store (DESIGN §4).
//!
//! A recipient's choice is `known`: people of their own domain. Mail servers and relays show an API token that the
//! admin made, and learn of everybody here. For everyone else the answer is `none`: their mail goes whole by mail, and
//! the recipient's relay detaches it.

use lighter_protocol::Mailbox;

/// Whether `recipient` accepts a sender who acts for `sender`.
pub fn accepts(recipient: &Mailbox, sender: &Mailbox) -> bool {
    recipient.domain() == sender.domain()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_of_the_own_domain_are_known_and_nobody_else() {
        let mailbox = |text: &str| text.parse::<Mailbox>().unwrap();
        assert!(accepts(&mailbox("alice@example.org"), &mailbox("bob@example.org")));
        for stranger in ["bob@example.com", "bob@sub.example.org", "bob@xexample.org"] {
            assert!(!accepts(&mailbox("alice@example.org"), &mailbox(stranger)), "{stranger}");
        }
    }
}
