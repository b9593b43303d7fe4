//! Who learns of a recipient's store (DESIGN §4): the recipient's choice.
//!
//! `open`: whoever their own domain attests; `known`, where nothing was said: people of the own domain, and those whom
//! the recipient accepted or wrote to; `closed`: nobody. Who is blocked never does. Mail servers and relays show an API
//! token that the admin made, and learn of everybody here. For everyone else the answer is `none`: their mail goes whole by
//! mail, and the recipient's relay detaches it.

use std::collections::HashMap;

use lighter_protocol::{Mailbox, UnixTime};
use lighter_transport::location::api::{
    Acceptance, AcceptanceChange, AcceptancePolicy, Correspondent, Standing,
};
use lighter_transport::location::limits::CORRESPONDENTS_MAX;

use crate::rows::CorrespondentRow;

/// What a recipient has chosen. Invariant: `correspondents.len() <= CORRESPONDENTS_MAX`.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    policy: AcceptancePolicy,
    correspondents: HashMap<Mailbox, CorrespondentRow>,
}

/// One step of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The policy is another.
    Policy(AcceptancePolicy),
    /// This is said of somebody.
    Say(Mailbox, CorrespondentRow),
    /// Nothing is said of them any more.
    Forget(Mailbox),
}

/// Something would be said of more people than are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyPeople;

/// Whether `recipient`, whose `choice` is this, accepts a sender who acts for `sender`.
pub fn accepts(choice: Option<&Choice>, recipient: &Mailbox, sender: &Mailbox) -> bool {
    if recipient == sender {
        return true;
    }
    let standing = choice.and_then(|choice| choice.correspondents.get(sender)).map(|row| row.standing);
    let is_own = recipient.domain() == sender.domain();
    match (choice.map(|choice| choice.policy).unwrap_or_default(), standing) {
        (_, Some(Standing::Blocked)) | (AcceptancePolicy::Closed, _) => false,
        (AcceptancePolicy::Open, _) => true,
        (AcceptancePolicy::Known, standing) => is_own || standing.is_some(),
    }
}

impl Choice {
    /// All of it, by mailbox.
    pub fn to_acceptance(&self) -> Acceptance {
        let mut correspondents: Vec<_> = self
            .correspondents
            .iter()
            .map(|(mailbox, row)| Correspondent {
                mailbox: mailbox.clone(),
                standing: row.standing,
                since: row.since,
            })
            .collect();
        correspondents.sort_by(|one, other| one.mailbox.cmp(&other.mailbox));
        Acceptance { policy: self.policy, correspondents }
    }

    /// Of whom something is said.
    pub fn correspondents(&self) -> impl Iterator<Item = &Mailbox> {
        self.correspondents.keys()
    }

    /// Whether it is what counts where nothing was said.
    pub fn is_default(&self) -> bool {
        self.policy == AcceptancePolicy::default() && self.correspondents.is_empty()
    }

    /// The steps of `change` that change something. Nothing is changed yet.
    ///
    /// Where as many are known as are kept, whom the user wrote to longest ago makes room for whom they write to now.
    ///
    /// # Errors
    /// [`TooManyPeople`].
    pub fn plan(&self, change: &AcceptanceChange, now: UnixTime) -> Result<Vec<Step>, TooManyPeople> {
        let mut after = self.clone();
        let mut steps = Vec::new();
        let mut take = |after: &mut Self, step: Step| {
            if after.apply(&step) {
                steps.push(step);
            }
        };
        if let Some(policy) = change.policy {
            take(&mut after, Step::Policy(policy));
        }
        for mailbox in &change.forget {
            take(&mut after, Step::Forget(mailbox.clone()));
        }
        for (standing, mailboxes) in
            [(Standing::Accepted, &change.accept), (Standing::Blocked, &change.block)]
        {
            for mailbox in mailboxes {
                take(&mut after, Step::Say(mailbox.clone(), CorrespondentRow { standing, since: now }));
            }
        }
        for mailbox in &change.wrote_to {
            if after.correspondents.contains_key(mailbox) {
                continue;
            }
            if after.correspondents.len() >= CORRESPONDENTS_MAX
                && let Some(oldest) = after.oldest_written_to()
            {
                take(&mut after, Step::Forget(oldest));
            }
            let row = CorrespondentRow { standing: Standing::WrittenTo, since: now };
            take(&mut after, Step::Say(mailbox.clone(), row));
        }
        if after.correspondents.len() > CORRESPONDENTS_MAX { Err(TooManyPeople) } else { Ok(steps) }
    }

    /// Takes a step; false where it changes nothing.
    pub fn apply(&mut self, step: &Step) -> bool {
        match step {
            Step::Policy(policy) => std::mem::replace(&mut self.policy, *policy) != *policy,
            Step::Forget(mailbox) => self.correspondents.remove(mailbox).is_some(),
            Step::Say(mailbox, row) => {
                let known = self.correspondents.get(mailbox).map(|known| known.standing);
                if known == Some(row.standing) {
                    return false;
                }
                self.correspondents.insert(mailbox.clone(), *row);
                true
            }
        }
    }

    fn oldest_written_to(&self) -> Option<Mailbox> {
        let written = self.correspondents.iter().filter(|(_, row)| row.standing == Standing::WrittenTo);
        written.min_by_key(|(mailbox, row)| (row.since, *mailbox)).map(|(mailbox, _)| mailbox.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn mailbox(text: &str) -> Mailbox {
        text.parse().unwrap()
    }

    fn choice(change: &AcceptanceChange) -> Choice {
        let mut choice = Choice::default();
        for step in choice.plan(change, NOW).unwrap() {
            assert!(choice.apply(&step), "a step that changes nothing: {step:?}");
        }
        choice
    }

    #[test]
    fn people_of_the_own_domain_are_known_and_nobody_else_until_something_is_said() {
        assert!(accepts(None, &mailbox("alice@example.org"), &mailbox("bob@example.org")));
        for stranger in ["bob@example.com", "bob@sub.example.org", "bob@xexample.org"] {
            assert!(!accepts(None, &mailbox("alice@example.org"), &mailbox(stranger)), "{stranger}");
        }
    }

    // SPEC: A15
    #[test]
    fn each_policy_and_each_standing_say_who_learns_of_a_store() {
        let alice = mailbox("alice@example.org");
        let (own, friend, pen_pal) =
            (mailbox("own@example.org"), mailbox("friend@a.example"), mailbox("pen-pal@b.example"));
        let (own_pest, pest) = (mailbox("pest@example.org"), mailbox("pest@c.example"));
        let stranger = mailbox("stranger@a.example");
        let asked = [&own, &friend, &pen_pal, &own_pest, &pest, &stranger];
        for (policy, answers) in [
            (AcceptancePolicy::Open, [true, true, true, false, false, true]),
            (AcceptancePolicy::Known, [true, true, true, false, false, false]),
            (AcceptancePolicy::Closed, [false; 6]),
        ] {
            let choice = choice(&AcceptanceChange {
                policy: Some(policy),
                accept: vec![friend.clone()],
                block: vec![own_pest.clone(), pest.clone()],
                wrote_to: vec![pen_pal.clone()],
                ..AcceptanceChange::default()
            });
            assert_eq!(asked.map(|sender| accepts(Some(&choice), &alice, sender)), answers, "{policy}");
            assert!(accepts(Some(&choice), &alice, &alice), "the own devices");
        }
    }

    #[test]
    fn writing_to_somebody_accepts_them_unless_something_was_said_of_them() {
        let (pest, friend) = (mailbox("pest@c.example"), mailbox("friend@a.example"));
        let blocked = choice(&AcceptanceChange { block: vec![pest.clone()], ..AcceptanceChange::default() });
        let wrote =
            AcceptanceChange { wrote_to: vec![pest.clone(), friend.clone()], ..AcceptanceChange::default() };
        let steps = blocked.plan(&wrote, NOW).unwrap();
        assert_eq!(steps.len(), 1, "{steps:?}");
        let again = choice(&wrote).plan(&wrote, NOW).unwrap();
        assert!(again.is_empty(), "what is known is not written down again: {again:?}");
        let forgotten =
            AcceptanceChange { forget: vec![pest], accept: vec![friend], ..AcceptanceChange::default() };
        assert_eq!(choice(&wrote).plan(&forgotten, NOW).unwrap().len(), 2);
    }

    #[test]
    fn a_full_list_makes_room_for_whom_one_writes_to_and_is_said_to_be_full_otherwise() {
        let many = |at: &str| (0..CORRESPONDENTS_MAX).map(|n| mailbox(&format!("{n:05}@{at}"))).collect();
        let written =
            choice(&AcceptanceChange { wrote_to: many("a.example"), ..AcceptanceChange::default() });
        let one = vec![mailbox("one@b.example")];
        let wrote = AcceptanceChange { wrote_to: one.clone(), ..AcceptanceChange::default() };
        let steps = written.plan(&wrote, NOW).unwrap();
        assert_eq!(steps[0], Step::Forget(mailbox("00000@a.example")));
        let accepted = choice(&AcceptanceChange { accept: many("a.example"), ..AcceptanceChange::default() });
        for change in [wrote, AcceptanceChange { accept: one, ..AcceptanceChange::default() }] {
            assert_eq!(accepted.plan(&change, NOW), Err(TooManyPeople));
        }
    }
}
