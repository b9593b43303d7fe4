//! Stores of other domains ask (SPEC A15, D9): over real HTTP, between location servers that know each other by hand. (That
//! they find each other by DNS is shown by tests/e2e.)

use std::time::Duration;

use lighter_protocol::{Attestation, Introduction, Mailbox, PeerId, Signed, UnixTime};
use lighter_transport::location::api::{
    AcceptanceChange, AcceptancePolicy, ForeignRequest, RegisterAnswer, Standing,
};
use lighter_transport::location::foreign::{Asker, ForeignAsk, ForeignQuestion};
use lighter_transport::location::{LocationError, Secret};

use crate::world::{Store, World, mailbox};

/// A sender at `a.example` and a recipient at `b.example`, each at their own location server.
struct Two {
    a: World,
    b: World,
    sender: Store,
    attestation: Signed<Attestation>,
    recipient: Store,
    session: Secret,
}

const SENDER: &str = "sender@a.example";
const RECIPIENT: &str = "recipient@b.example";

impl Two {
    async fn start() -> Self {
        let a = World::start_with(|config| config.domains = vec!["a.example".to_owned()]).await;
        let url = a.server.url();
        let b = World::start_with(|config| {
            config.domains = vec!["b.example".to_owned()];
            config.finding.domains.insert("a.example".to_owned(), url);
            config.rates.strangers_per_s = 1_000;
        })
        .await;
        let (sender, attestation) = attested(&a, SENDER).await;
        let (recipient, session) = b.online(RECIPIENT).await;
        Self { a, b, sender, attestation, recipient, session }
    }

    fn asker(&self) -> Asker<'_> {
        Asker { key: self.sender.identity.keypair(), attestation: &self.attestation }
    }

    async fn finds(&self) -> bool {
        let recipient = std::slice::from_ref(&self.recipient.mailbox);
        let found =
            self.b.client.foreign_lookup(&self.asker(), self.b.server.peer(), recipient).await.unwrap();
        found[0].is_some()
    }

    async fn change(&self, change: AcceptanceChange) {
        self.b.client.change_acceptance(&self.session, &change).await.unwrap();
    }

    async fn choose(&self, policy: AcceptancePolicy) {
        self.change(AcceptanceChange { policy: Some(policy), ..AcceptanceChange::default() }).await;
    }

    /// What is answered to a question that was put together by hand.
    async fn refused(
        &self,
        attestation: &Signed<Attestation>,
        question: Signed<ForeignQuestion>,
    ) -> Option<u16> {
        let request = ForeignRequest { attestation: attestation.clone(), question, speaker: None };
        let body = serde_json::to_string(&request).unwrap();
        let answer = crate::http::ask(self.b.server.address(), "/v1/foreign/lookup", &body).await;
        answer.split(' ').nth(1).and_then(|status| status.parse().ok())
    }
}

async fn attested(world: &World, name: &str) -> (Store, Signed<Attestation>) {
    let store = world.enrolled(name).await;
    let RegisterAnswer { attestation, .. } = store.register(world, 1).await.unwrap();
    (store, attestation.unwrap())
}

fn accept(name: &str) -> AcceptanceChange {
    AcceptanceChange { accept: vec![mailbox(name)], ..AcceptanceChange::default() }
}

// SPEC: A15
#[tokio::test]
async fn a_recipient_chooses_who_of_other_domains_learns_of_their_store() {
    let two = Two::start().await;
    assert!(!two.finds().await, "a stranger");
    two.change(accept(SENDER)).await;
    assert!(two.finds().await, "accepted");
    two.choose(AcceptancePolicy::Closed).await;
    assert!(!two.finds().await, "closed to all");
    two.choose(AcceptancePolicy::Known).await;
    two.change(AcceptanceChange { forget: vec![mailbox(SENDER)], ..AcceptanceChange::default() }).await;
    assert!(!two.finds().await, "forgotten");
    two.change(AcceptanceChange { wrote_to: vec![mailbox(SENDER)], ..AcceptanceChange::default() }).await;
    assert!(two.finds().await, "written to");
    two.change(AcceptanceChange { block: vec![mailbox(SENDER)], ..AcceptanceChange::default() }).await;
    two.choose(AcceptancePolicy::Open).await;
    assert!(!two.finds().await, "blocked, whatever the policy");
    two.change(AcceptanceChange { forget: vec![mailbox(SENDER)], ..AcceptanceChange::default() }).await;
    assert!(two.finds().await, "open");
    let chosen = two.b.client.acceptance(&two.session).await.unwrap();
    assert_eq!((chosen.policy, chosen.correspondents.len()), (AcceptancePolicy::Open, 0));
}

#[tokio::test]
async fn a_choice_is_durable_and_goes_with_the_mailbox() {
    let Two { b, session, recipient, .. } = Two::start().await;
    b.client.change_acceptance(&session, &accept(SENDER)).await.unwrap();
    let b = b.restart().await;
    let session = recipient.register(&b, 2).await.unwrap().session;
    let chosen = b.client.acceptance(&session).await.unwrap();
    assert_eq!(chosen.correspondents[0].standing, Standing::Accepted);
    let remove =
        lighter_location::AdminCommand::UserRemove { mailbox: recipient.mailbox.clone(), peer: None };
    b.server.administer(remove).await.unwrap();
    let (_, session) = b.online(RECIPIENT).await;
    assert_eq!(b.client.acceptance(&session).await.unwrap().correspondents, []);
}

#[tokio::test]
async fn who_is_accepted_is_introduced_by_the_recipients_own_server() {
    let two = Two::start().await;
    let (server, own) = (two.b.server.peer(), &two.recipient.mailbox);
    let introduce = async || two.b.client.foreign_introduction(&two.asker(), server, own, 77).await.unwrap();
    assert_eq!(introduce().await, None);
    two.change(accept(SENDER)).await;
    let introduction = introduce().await.unwrap();
    let sender = two.sender.identity.peer();
    let verified = Introduction::verify(&introduction, &server, &sender, own, 77, UnixTime::now()).unwrap();
    assert_eq!(verified.sender_mailbox, mailbox(SENDER));
}

// SPEC: D9
#[tokio::test]
async fn bad_input_34_a_proof_that_is_forged_stale_or_for_another_server_is_refused_like_any_other() {
    let two = Two::start().await;
    two.choose(AcceptancePolicy::Open).await;
    let server = two.b.server.peer();
    let now = UnixTime::now();
    let question = |server: PeerId, time: UnixTime, by: &Store| {
        let ask = ForeignAsk::Lookup(vec![mailbox(RECIPIENT)]);
        Signed::sign(&ForeignQuestion { server, time, ask }, by.identity.keypair()).unwrap()
    };
    let good = question(server, now, &two.sender);
    assert_eq!(two.refused(&two.attestation, good.clone()).await, Some(200), "the test can fail");

    let thief = Store::new(SENDER);
    let elsewhere = two.a.server.peer();
    let hour = Duration::from_secs(3_600);
    for (why, question) in [
        ("signed by another", question(server, now, &thief)),
        ("for another server", question(elsewhere, now, &two.sender)),
        ("of an hour ago", question(server, UnixTime(now.0 - hour.as_secs()), &two.sender)),
        ("of the next hour", question(server, now.plus(hour), &two.sender)),
    ] {
        assert_eq!(two.refused(&two.attestation, question).await, Some(403), "{why}");
    }
    // Attestations: of a server that nobody knows, of one that speaks for another domain, expired.
    let strange = World::start_with(|_| {}).await;
    let claims: Attestation = two.attestation.claim().unwrap();
    let by = |key: &lighter_protocol::Keypair, change: &dyn Fn(&mut Attestation)| {
        let mut claims = claims.clone();
        change(&mut claims);
        Signed::sign(&claims, key).unwrap()
    };
    let unknown = lighter_transport::Identity::generate();
    let forged = by(unknown.keypair(), &|_| {});
    assert_eq!(two.refused(&forged, good.clone()).await, Some(403), "signed by nobody that is known");
    let (other, attestation) = attested(&strange, "sender@nowhere.invalid").await;
    let asks = question(server, now, &other);
    assert_eq!(two.refused(&attestation, asks).await, Some(403), "of a domain without a location server");
    let (other, attestation) = attested(&strange, SENDER).await;
    let asks = question(server, now, &other);
    assert_eq!(two.refused(&attestation, asks).await, Some(403), "attested by another domain's server");
    let (other, attestation) = attested(&strange, "pretender@b.example").await;
    let asks = question(server, now, &other);
    assert_eq!(two.refused(&attestation, asks).await, Some(403), "says that it is of this very domain");
}

#[tokio::test]
async fn a_domain_that_cannot_be_asked_now_is_said_to_be_away_and_one_that_is_known_counts_on() {
    let two = Two::start().await;
    two.choose(AcceptancePolicy::Open).await;
    assert!(two.finds().await);
    let Two { a, b, sender, attestation, .. } = two;
    a.server.stop().await;
    let asker = Asker { key: sender.identity.keypair(), attestation: &attestation };
    let names = [mailbox(RECIPIENT)];
    let found = b.client.foreign_lookup(&asker, b.server.peer(), &names).await.unwrap();
    assert!(found[0].is_some(), "its key is remembered");
    let b = b.restart_with(|config| {
        config.domains = vec!["b.example".to_owned()];
        config.finding.domains.insert("a.example".to_owned(), "http://127.0.0.1:1".to_owned());
    });
    let b = b.await;
    let away = b.client.foreign_lookup(&asker, b.server.peer(), &names).await;
    assert!(matches!(away, Err(LocationError::Unavailable)), "{away:?}");
}

// SPEC: D9
#[tokio::test]
async fn one_domains_stores_share_one_allowance_and_all_domains_another() {
    let two = Two::start().await;
    let names: Vec<Mailbox> = (0..1_000).map(|n| mailbox(&format!("{n}@b.example"))).collect();
    let refused = two.b.client.foreign_lookup(&two.asker(), two.b.server.peer(), &names).await;
    assert!(matches!(refused, Err(LocationError::TooMany { .. })), "{refused:?}");
    // Another store of that domain has the same allowance.
    let (other, attestation) = attested(&two.a, "other@a.example").await;
    let asker = Asker { key: other.identity.keypair(), attestation: &attestation };
    let refused = two.b.client.foreign_lookup(&asker, two.b.server.peer(), &names[..20]).await;
    assert!(matches!(refused, Err(LocationError::TooMany { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_server_that_announces_another_key_is_known_by_both() {
    let two = Two::start().await;
    two.choose(AcceptancePolicy::Open).await;
    let before = two.a.server.peer();
    let announce = lighter_location::AdminCommand::KeyAnnounce { overlap_s: None };
    two.a.server.administer(announce).await.unwrap();
    let answer = two.a.client.domain().await.unwrap();
    let change = answer.key_changes[0].verify(&before).unwrap();
    assert_eq!((answer.location, change.present), (before, before));
    assert_ne!(change.next, before);
    assert!(two.finds().await);
    // It is announced the same after a restart.
    let Two { a, .. } = two;
    let a = a.restart().await;
    assert_eq!(a.client.domain().await.unwrap().key_changes, answer.key_changes);
    let too_soon = lighter_location::AdminCommand::KeyAnnounce { overlap_s: Some(60) };
    assert!(a.server.administer(too_soon).await.is_err());
}
