//! The JSON of the API, text for text: other programs read it.

use lighter_protocol::Keypair;

use super::*;

fn keypair() -> Keypair {
    Keypair::ed25519_from_bytes([7; 32]).unwrap()
}

#[test]
fn none_is_null_and_nothing_else() {
    // SPEC: A15
    assert_eq!(serde_json::to_string(&LookupAnswer { store: None }).unwrap(), r#"{"store":null}"#);
}

#[test]
fn a_store_record_reads_as_documented() {
    // SPEC: A3
    let record = StoreRecord {
        peer: keypair().public().to_peer_id(),
        addresses: vec!["192.0.2.1:4001".parse().unwrap(), "[2001:db8::1]:4001".parse().unwrap()],
        presence: Presence::Online,
        since: UnixTime(1_700_000_000),
        primary: true,
        relays: Vec::new(),
        sealing_keys: Vec::new(),
        successions: Vec::new(),
    };
    let peer = record.peer.to_string();
    let json = format!(
        r#"{{"peer":"{peer}","addresses":["192.0.2.1:4001","[2001:db8::1]:4001"],"presence":"online","since":1700000000,"primary":true}}"#
    );
    assert_eq!(serde_json::to_string(&record).unwrap(), json);
    assert_eq!(serde_json::from_str::<StoreRecord>(&json).unwrap(), record);

    // One whose domain has a relay names it; a server of before named none.
    let relay = RelayRecord {
        peer: record.peer,
        addresses: vec!["192.0.2.9:7443".parse().unwrap()],
        retrieval_url: "https://b.example".to_owned(),
    };
    let helped = StoreRecord { relays: vec![relay], ..record };
    let named = format!(
        r#"{{"relays":[{{"peer":"{peer}","addresses":["192.0.2.9:7443"],"retrieval_url":"https://b.example"}}]"#
    );
    let json = format!("{},{}", json.trim_end_matches('}'), &named[1..]) + "}";
    assert_eq!(serde_json::to_string(&helped).unwrap(), json);
    assert_eq!(serde_json::from_str::<StoreRecord>(&json).unwrap(), helped);
}

#[test]
fn signed_statements_travel_as_base64url_and_still_verify() {
    let key = keypair();
    let peer = key.public().to_peer_id();
    let mailbox: Mailbox = "alice@example.org".parse().unwrap();
    let statement = Enrolment { token_hash: [1; 32], mailbox: mailbox.clone(), peer };
    let proof = Signed::sign(&statement, &key).unwrap();
    let request = EnrolRequest { token: "t".into(), mailbox, peer, proof };
    let json = serde_json::to_string(&request).unwrap();
    assert!(!json.contains('='), "no padding");
    let back: EnrolRequest = serde_json::from_str(&json).unwrap();
    assert_eq!(back.proof.verify(&peer).unwrap(), statement);
}

#[test]
fn a_missing_attestation_is_null() {
    let answer = PingAnswer { attestation: None, hosting: None };
    assert_eq!(serde_json::to_string(&answer).unwrap(), r#"{"attestation":null}"#);
    assert_eq!(serde_json::from_str::<PingAnswer>(r#"{"attestation":null}"#).unwrap(), answer);
}

#[test]
fn a_secret_shows_itself_only_when_asked() {
    let secret = Secret::new("lapi_very-secret");
    assert!(!format!("{secret:?}").contains("very"));
    assert_eq!(secret.expose(), "lapi_very-secret");
}

#[test]
fn sealing_keys_travel_as_texts_and_one_that_is_not_there_leaves_the_form_of_before() {
    let key = keypair();
    let peer = key.public().to_peer_id();
    let mailbox: Mailbox = "alice@example.org".parse().unwrap();
    let registration = Registration {
        mailbox: mailbox.clone(),
        peer,
        addresses: Vec::new(),
        sequence: 1,
        expires: UnixTime(1),
    };
    let registration = Signed::sign(&registration, &key).unwrap();
    let before = RegisterRequest { registration: registration.clone(), sealing_key: None };
    let json = serde_json::to_string(&before).unwrap();
    assert!(!json.contains("sealing_key"));
    assert_eq!(serde_json::from_str::<RegisterRequest>(&json).unwrap(), before);

    let sealing = SealingKey { mailbox, peer, key: [1; 32], issued: UnixTime(1) };
    let sealing = Signed::sign(&sealing, &key).unwrap();
    let now = RegisterRequest { registration, sealing_key: Some(sealing.clone()) };
    let back: RegisterRequest = serde_json::from_str(&serde_json::to_string(&now).unwrap()).unwrap();
    assert_eq!(back, now);
    let record = StoreRecord {
        peer,
        addresses: Vec::new(),
        presence: Presence::Offline,
        since: UnixTime(1),
        primary: true,
        relays: Vec::new(),
        sealing_keys: vec![sealing.clone(), sealing],
        successions: Vec::new(),
    };
    let json = serde_json::to_string(&record).unwrap();
    assert!(json.contains(r#""sealing_keys":["Q"#), "{json}");
    assert_eq!(serde_json::from_str::<StoreRecord>(&json).unwrap(), record);
}
