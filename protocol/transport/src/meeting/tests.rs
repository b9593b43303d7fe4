//! On real sockets: a sender, a helper, a store that has a session with it; and senders that may not.

use std::time::Duration;

use lighter_protocol::{Signed, UnixTime};
use tokio::time::timeout;

use super::*;
use crate::endpoint::{Endpoint, EndpointConfig};
use crate::identity::Identity;

/// Long enough for anything that is to happen on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

fn bob() -> Mailbox {
    "bob@b.example".parse().unwrap()
}

/// The helper's side of a session with a store, the store's side of it, and of a connection that a sender opened.
struct Parts {
    helper: Helper,
    location: Identity,
    endpoints: [Endpoint; 3],
    to_store: Connection,
    store: Connection,
    to_sender: Connection,
    sender: Connection,
}

async fn parts() -> Parts {
    let bind = || {
        let local = ([127, 0, 0, 1], 0).into();
        Endpoint::bind(&Identity::generate(), local, EndpointConfig::default()).unwrap()
    };
    let [sender_at, helper_at, store_at] = [bind(), bind(), bind()];
    let address = [helper_at.local_addr().unwrap()];
    let open = async |from: &Endpoint| {
        let (theirs, ours) = tokio::join!(from.connect(helper_at.peer(), &address, LONG), helper_at.accept());
        (theirs.unwrap(), ours.unwrap())
    };
    let (store, to_store) = open(&store_at).await;
    let (sender, to_sender) = open(&sender_at).await;
    let endpoints = [sender_at, helper_at, store_at];
    let location = Identity::generate();
    Parts { helper: Helper::default(), location, endpoints, to_store, store, to_sender, sender }
}

impl Parts {
    fn introduction(&self) -> Introduction {
        Introduction {
            sender: self.sender_peer(),
            sender_mailbox: "alice@b.example".parse().unwrap(),
            recipient: bob(),
            bytes_max: 0,
            expires: UnixTime::now().plus(Duration::from_mins(5)),
            number: 7,
        }
    }

    fn sender_peer(&self) -> PeerId {
        self.endpoints[0].peer()
    }

    fn store_peer(&self) -> PeerId {
        self.endpoints[2].peer()
    }

    fn meet(&self, introduction: &Introduction, signer: &Identity) -> Meet {
        let introduction = Signed::sign(introduction, signer.keypair()).unwrap();
        Meet { introduction, store: self.store_peer() }
    }

    /// What the helper answers; a store with this mailbox is the only one that it has.
    async fn ask(&self, meet: &Meet) -> Response {
        let session = |mailbox: &Mailbox, store: &PeerId| {
            (*mailbox == bob() && *store == self.store_peer()).then(|| self.to_store.clone())
        };
        let location = self.location.peer();
        self.helper.meet(meet, &self.to_sender, &location, Now::read(), session).await
    }

    /// Answers the one knock that comes; gives it.
    async fn answer_knock(&self, response: Response) -> Knock {
        let incoming = timeout(LONG, self.store.accept_request()).await.unwrap().unwrap();
        let Request::Knock(knock) = incoming.request else { panic!("{:?}", incoming.request) };
        incoming.responder.respond(&response).await.unwrap();
        knock
    }
}

#[tokio::test]
async fn each_learns_where_the_helper_sees_the_other() {
    let parts = parts().await;
    let meet = parts.meet(&parts.introduction(), &parts.location);
    let (answer, knock) = tokio::join!(parts.ask(&meet), parts.answer_knock(Response::Coming));
    assert_eq!(answer, Response::Met(parts.endpoints[2].local_addr().unwrap()));
    assert_eq!(knock.address, parts.endpoints[0].local_addr().unwrap());
    assert_eq!(knock.introduction, meet.introduction);
    assert_eq!(parts.sender.first_udp_address(), parts.endpoints[1].local_addr().ok());
}

#[tokio::test]
async fn bad_input_34_a_meeting_without_an_introduction_that_counts_is_refused_and_the_store_hears_nothing() {
    let parts = parts().await;
    let well = parts.introduction();
    let ago = |seconds| UnixTime(UnixTime::now().0 - seconds);
    let cases = [
        ("forged", parts.meet(&well, &Identity::generate())),
        ("by the sender itself", parts.meet(&well, parts.endpoints[0].identity())),
        ("expired", parts.meet(&Introduction { expires: ago(3_600), ..well.clone() }, &parts.location)),
        (
            "another's",
            parts.meet(&Introduction { sender: PeerId::random(), ..well.clone() }, &parts.location),
        ),
        (
            "to somebody else",
            parts.meet(
                &Introduction { recipient: "eve@b.example".parse().unwrap(), ..well.clone() },
                &parts.location,
            ),
        ),
        ("another store", Meet { store: PeerId::random(), ..parts.meet(&well, &parts.location) }),
    ];
    for (case, meet) in cases {
        assert_eq!(parts.ask(&meet).await, Response::Refused, "{case}");
    }
    assert!(timeout(Duration::from_millis(200), parts.store.accept_request()).await.is_err());
}

#[tokio::test]
async fn a_store_that_does_not_want_to_is_no_different_from_one_that_is_not_there() {
    let parts = parts().await;
    let meet = parts.meet(&parts.introduction(), &parts.location);
    let (answer, _) = tokio::join!(parts.ask(&meet), parts.answer_knock(Response::Refused));
    assert_eq!(answer, Response::Refused);
    parts.store.close();
    assert_eq!(parts.ask(&meet).await, Response::Refused);
}

#[tokio::test]
async fn bad_input_11_a_flood_of_meetings_reaches_the_store_a_few_times() {
    let parts = parts().await;
    let meet = parts.meet(&parts.introduction(), &parts.location);
    let flood = async {
        let mut met = 0;
        for _ in 0..200 {
            met += u32::from(parts.ask(&meet).await != Response::Refused);
        }
        parts.store.close();
        met
    };
    let answering = async {
        let mut knocks = 0;
        while let Some(incoming) = parts.store.accept_request().await {
            knocks += 1;
            let _ = incoming.responder.respond(&Response::Coming).await;
        }
        knocks
    };
    let (met, knocks) = timeout(LONG, async { tokio::join!(flood, answering) }).await.unwrap();
    assert_eq!(met, knocks);
    assert!((MEETS_BURST..MEETS_BURST + 5).contains(&met), "{met}");
}
