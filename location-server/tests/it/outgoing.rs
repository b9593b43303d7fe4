//! Outgoing mail servers ask for the users of their domains (SPEC A26): over real HTTP, within a domain and between two.

use lighter_protocol::{Introduction, Mailbox, Signed, UnixTime};
use lighter_transport::location::api::{
    AcceptanceChange, AcceptancePolicy, ForeignRequest, RegisterAnswer, Standing,
};
use lighter_transport::location::foreign::{Asker, ForeignAsk, ForeignQuestion, Speaker, SpeaksFor};
use lighter_transport::location::{LocationError, Scope, Secret};

use crate::world::{Store, World, mailbox};

const OUT: &str = "out@a.example";
const SAM: &str = "sam@a.example";
const RECIPIENT: &str = "recipient@b.example";

async fn domain_a() -> World {
    World::start_with(|config| {
        config.domains = vec!["a.example".to_owned(), "c.example".to_owned()];
        config.outgoing.insert(mailbox(OUT), vec!["a.example".to_owned()]);
    })
    .await
}

fn refused<T: std::fmt::Debug>(answer: &Result<T, LocationError>) -> bool {
    matches!(answer, Err(LocationError::Refused))
}

// SPEC: A26
#[tokio::test]
async fn within_a_domain_what_the_recipient_says_of_the_sender_counts_and_not_what_it_says_of_the_server() {
    let world = domain_a().await;
    let (out, session) = world.online(OUT).await;
    let (alice, of_alice) = world.online("alice@a.example").await;
    let sam = mailbox(SAM);
    let names = [alice.mailbox];
    let finds = async |sender: Option<&Mailbox>| {
        world.client.lookup_for(&session, sender, &names).await.unwrap()[0].is_some()
    };
    assert!(finds(None).await && finds(Some(&sam)).await);
    let block = AcceptanceChange { block: vec![sam.clone()], ..AcceptanceChange::default() };
    world.client.change_acceptance(&of_alice, &block).await.unwrap();
    assert!(finds(None).await && !finds(Some(&sam)).await, "sam is blocked");
    assert!(finds(Some(&mailbox("eve@a.example"))).await);
    let introduce = async |sender: &Mailbox| {
        world.client.introduction_for(&session, Some(sender), &names[0], 77).await.unwrap()
    };
    assert_eq!(introduce(&sam).await, None);
    let eve = mailbox("eve@a.example");
    let introduction = introduce(&eve).await.unwrap();
    let (location, peer) = (world.server.peer(), out.identity.peer());
    let verified =
        Introduction::verify(&introduction, &location, &peer, &names[0], 77, UnixTime::now()).unwrap();
    assert_eq!(verified.sender_mailbox, eve);
}

// SPEC: A26, D9
#[tokio::test]
async fn bad_input_34_nobody_speaks_for_others_but_whom_the_admin_named_and_for_no_other_domain() {
    let world = domain_a().await;
    let (_, out) = world.online(OUT).await;
    let (_, user) = world.online("eve@a.example").await;
    let (sam, names) = (mailbox(SAM), [mailbox("alice@a.example")]);
    let other = mailbox("sam@c.example");
    let token = world.token(&[Scope::Lookup]).await;
    for (why, bearer, sender) in [
        ("a user", &user, &sam),
        ("of another domain of this server", &out, &other),
        ("a mail server's token", &token, &sam),
    ] {
        assert!(refused(&world.client.lookup_for(bearer, Some(sender), &names).await), "{why}");
    }
    assert!(refused(&world.client.introduction_for(&user, Some(&sam), &names[0], 1).await));
    assert!(refused(&world.client.introduction_for(&out, Some(&other), &names[0], 1).await));
    for (bearer, domain) in [(&user, "a.example"), (&out, "c.example"), (&out, "b.example"), (&out, "")] {
        assert!(refused(&world.client.speaker(bearer, domain).await), "{domain}");
    }
    // A further store of its mailbox is not confirmed yet.
    let further = world.enrolled(OUT).await;
    let pending = further.register(&world, 1).await.unwrap();
    assert!(pending.attestation.is_none());
    assert!(refused(&world.client.lookup_for(&pending.session, Some(&sam), &names).await));
    assert!(refused(&world.client.speaker(&pending.session, "a.example").await));
    // The own mailbox is everybody's to name.
    assert!(world.client.lookup_for(&user, Some(&mailbox("eve@a.example")), &names).await.is_ok());
}

// SPEC: A26
#[tokio::test]
async fn whom_a_user_wrote_to_through_it_is_accepted_by_that_and_nothing_else_is_chosen_for_them() {
    let world = domain_a().await;
    let (_, out) = world.online(OUT).await;
    let (sam, of_sam) = world.online(SAM).await;
    let change = |sender: &Mailbox, wrote_to: &str| AcceptanceChange {
        wrote_to: vec![mailbox(wrote_to)],
        sender: Some(sender.clone()),
        ..AcceptanceChange::default()
    };
    let friend = change(&sam.mailbox, "friend@b.example");
    world.client.change_acceptance(&out, &friend).await.unwrap();
    let chosen = world.client.acceptance(&of_sam).await.unwrap();
    assert_eq!(chosen.correspondents.len(), 1);
    assert_eq!(chosen.correspondents[0].standing, Standing::WrittenTo);
    // Who has no store has nothing to choose, and no row.
    world.client.change_acceptance(&out, &change(&mailbox("nobody@a.example"), "x@b.example")).await.unwrap();
    let (_, later) = world.online("nobody@a.example").await;
    assert_eq!(world.client.acceptance(&later).await.unwrap().correspondents, []);
    let other = change(&mailbox("sam@c.example"), "x@b.example");
    assert!(refused(&world.client.change_acceptance(&out, &other).await));
    assert!(refused(&world.client.change_acceptance(&later, &friend).await), "a user, for another");
    for more in [
        AcceptanceChange { accept: vec![mailbox("x@b.example")], ..friend.clone() },
        AcceptanceChange { block: vec![mailbox("x@b.example")], ..friend.clone() },
        AcceptanceChange { forget: vec![mailbox("friend@b.example")], ..friend.clone() },
        AcceptanceChange { policy: Some(AcceptancePolicy::Closed), ..friend },
    ] {
        assert!(refused(&world.client.change_acceptance(&out, &more).await), "{more:?}");
    }
    assert_eq!(world.client.acceptance(&of_sam).await.unwrap(), chosen);
}

/// The outgoing mail server of `a.example`, and a recipient at `b.example`.
struct Two {
    a: World,
    b: World,
    out: Store,
    of_out: RegisterAnswer,
    session: Secret,
}

impl Two {
    async fn start() -> Self {
        let a = domain_a().await;
        let url = a.server.url();
        let b = World::start_with(|config| {
            config.domains = vec!["b.example".to_owned()];
            for domain in ["a.example", "c.example"] {
                config.finding.domains.insert(domain.to_owned(), url.clone());
            }
            config.rates.strangers_per_s = 1_000;
        })
        .await;
        let out = a.enrolled(OUT).await;
        let of_out = out.register(&a, 1).await.unwrap();
        let (_, session) = b.online(RECIPIENT).await;
        Self { a, b, out, of_out, session }
    }

    fn asker(&self) -> Asker<'_> {
        let attestation = self.of_out.attestation.as_ref().unwrap();
        Asker { key: self.out.identity.keypair(), attestation }
    }

    async fn speaker(&self) -> Signed<Speaker> {
        self.a.client.speaker(&self.of_out.session, "a.example").await.unwrap()
    }

    async fn finds(&self, sender: &Mailbox, speaker: &Signed<Speaker>) -> Result<bool, LocationError> {
        let speaks_for = Some(SpeaksFor { sender, speaker });
        let (asker, server, names) = (self.asker(), self.b.server.peer(), [mailbox(RECIPIENT)]);
        let found = self.b.client.foreign_lookup_for(&asker, speaks_for, server, &names).await?;
        Ok(found[0].is_some())
    }
}

// SPEC: A15, A26
#[tokio::test]
async fn between_domains_it_is_answered_and_introduced_as_the_user_it_names() {
    let two = Two::start().await;
    let (sam, eve) = (mailbox(SAM), mailbox("eve@a.example"));
    let speaker = two.speaker().await;
    assert!(!two.finds(&sam, &speaker).await.unwrap(), "a stranger");
    let accept = AcceptanceChange { accept: vec![sam.clone()], ..AcceptanceChange::default() };
    two.b.client.change_acceptance(&two.session, &accept).await.unwrap();
    assert!(two.finds(&sam, &speaker).await.unwrap());
    assert!(!two.finds(&eve, &speaker).await.unwrap(), "of whom nothing was said");
    let server = two.b.server.peer();
    let introduce = async |sender: &Mailbox| {
        let speaks_for = Some(SpeaksFor { sender, speaker: &speaker });
        let recipient = mailbox(RECIPIENT);
        two.b.client.foreign_introduction_for(&two.asker(), speaks_for, server, &recipient, 7).await.unwrap()
    };
    assert_eq!(introduce(&eve).await, None);
    let introduction = introduce(&sam).await.unwrap();
    let (peer, recipient) = (two.out.identity.peer(), mailbox(RECIPIENT));
    let verified = Introduction::verify(&introduction, &server, &peer, &recipient, 7, UnixTime::now());
    assert_eq!(verified.unwrap().sender_mailbox, sam);
}

// SPEC: A26, D9
#[tokio::test]
async fn bad_input_34_who_speaks_for_others_without_their_domains_word_is_refused_like_any_other() {
    let two = Two::start().await;
    let open = AcceptanceChange { policy: Some(AcceptancePolicy::Open), ..AcceptanceChange::default() };
    two.b.client.change_acceptance(&two.session, &open).await.unwrap();
    let (sam, speaker) = (mailbox(SAM), two.speaker().await);
    assert!(two.finds(&sam, &speaker).await.unwrap(), "the test can fail");
    for (why, sender) in [
        ("another domain of the same server", "sam@c.example"),
        ("the recipient's own domain", "sam@b.example"),
        ("a domain without a location server", "sam@nowhere.invalid"),
    ] {
        assert!(refused(&two.finds(&mailbox(sender), &speaker).await), "{why}");
    }
    let claim = speaker.claim().unwrap();
    let by = |key: &lighter_protocol::Keypair, change: &dyn Fn(&mut Speaker)| {
        let mut claim = claim.clone();
        change(&mut claim);
        Signed::sign(&claim, key).unwrap()
    };
    let own = two.out.identity.keypair();
    assert!(refused(&two.finds(&sam, &by(own, &|_| {})).await), "its own word");
    // Another user's store shows the server's word with its own key and attestation, and asks as itself.
    let eve = two.a.enrolled("eve@a.example").await;
    let attestation = eve.register(&two.a, 1).await.unwrap().attestation.unwrap();
    let asker = Asker { key: eve.identity.keypair(), attestation: &attestation };
    let names = [mailbox(RECIPIENT)];
    let server = two.b.server.peer();
    let speaks_for = Some(SpeaksFor { sender: &sam, speaker: &speaker });
    assert!(refused(&two.b.client.foreign_lookup_for(&asker, speaks_for, server, &names).await), "stolen");
    assert!(two.b.client.foreign_lookup(&asker, server, &names).await.is_ok(), "as itself");
    // The question names somebody, and nothing vouches for it.
    let ask = ForeignAsk::Lookup(names.to_vec()).on_behalf_of(sam);
    let question = ForeignQuestion { server, time: UnixTime::now(), ask };
    let request = ForeignRequest {
        attestation: two.asker().attestation.clone(),
        question: Signed::sign(&question, own).unwrap(),
        speaker: None,
    };
    let body = serde_json::to_string(&request).unwrap();
    let answer = crate::http::ask(two.b.server.address(), "/v1/foreign/lookup", &body).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}
