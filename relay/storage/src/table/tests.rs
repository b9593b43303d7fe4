//! The table: what may be in force, what a change makes of it, and its bytes.

use proptest::prelude::*;

use super::*;

/// The same in every run.
fn peer(number: u8) -> PeerId {
    let key = lighter_protocol::Keypair::ed25519_from_bytes([number + 1; 32]).unwrap();
    key.public().to_peer_id()
}

fn server(number: u8) -> ServerEntry {
    ServerEntry::new(peer(number), SocketAddr::from(([10, 0, 0, number], 7000)))
}

fn table(count: u8, copies: u8) -> Table {
    Table::first((1..=count).map(server).collect(), copies, BTreeSet::new())
}

fn needed(peers: &[u8]) -> Facts {
    Facts { needed: peers.iter().map(|number| (peer(*number), 3)).collect() }
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

#[test]
fn a_server_is_added_drained_and_removed() {
    // SPEC: B14
    let facts = Facts::default();
    let added = table(2, 2).change(&Change::Add(server(3)), &facts).unwrap();
    assert_eq!((added.version, added.servers.len(), added.quorum()), (2, 3, 2));
    assert_eq!(added.change(&Change::Remove(peer(1)), &facts), Err(ChangeError::NotDraining(peer(1))));

    let draining = added.change(&Change::Drain(peer(1)), &facts).unwrap();
    assert_eq!(draining.active().count(), 2);
    assert_eq!(draining.quorum(), 2, "it still counts: it has copies");
    assert_eq!(draining.change(&Change::Drain(peer(1)), &facts), Err(ChangeError::Unchanged));
    let refused = draining.change(&Change::Remove(peer(1)), &needed(&[1])).unwrap_err();
    assert_eq!(refused, ChangeError::StillNeeded { peer: peer(1), segments: 3 });
    assert!(refused.to_string().contains("array status"), "{refused}");

    let removed = draining.change(&Change::Remove(peer(1)), &facts).unwrap();
    assert_eq!((removed.version, removed.servers.len(), removed.lacking), (4, 2, 0));
    let again = removed.change(&Change::Add(server(1)), &facts).unwrap();
    assert!(again.gone.is_empty());
    let resumed = draining.change(&Change::Add(server(1)), &facts).unwrap();
    assert_eq!(resumed.active().count(), 3, "added again, it does not drain any more");
}

#[test]
fn what_would_leave_fewer_servers_than_copies_is_refused_with_what_to_do() {
    let facts = Facts::default();
    let two = table(2, 2);
    for change in [Change::Drain(peer(1)), Change::Lose(peer(1))] {
        let refused = two.change(&change, &facts).unwrap_err();
        assert_eq!(refused, TableError::TooFew { servers: 1, copies: 2 }.into());
        assert!(refused.to_string().contains("add servers first"), "{refused}");
    }
    assert_eq!(two.change(&Change::Drain(peer(9)), &facts), Err(ChangeError::NoSuchServer(peer(9))));
}

#[test]
fn a_lost_server_is_replaced_never_comes_back_and_its_copies_are_known_to_be_lacking() {
    let replace = Change::Replace { old: peer(1), new: server(3), is_lost: true };
    let replaced = table(2, 2).change(&replace, &needed(&[1])).unwrap();
    assert_eq!(replaced.servers.iter().map(|server| server.peer).collect::<Vec<_>>(), [peer(2), peer(3)]);
    // One of its records may now have one copy only: on any of the servers.
    assert_eq!((replaced.lacking, replaced.quorum()), (1, 2));
    assert_eq!(replaced.change(&Change::Add(server(1)), &Facts::default()), Err(ChangeError::Lost(peer(1))));
    let restored = replaced.change(&Change::Restored, &Facts::default()).unwrap();
    assert_eq!((restored.lacking, restored.quorum()), (0, 1));

    let nothing_lost = table(3, 2).change(&Change::Lose(peer(1)), &Facts::default()).unwrap();
    assert_eq!(nothing_lost.lacking, 0, "it had nothing that is not elsewhere");
    let orderly = Change::Replace { old: peer(1), new: server(3), is_lost: false };
    let orderly = table(2, 2).change(&orderly, &needed(&[1])).unwrap();
    assert_eq!(orderly.server(&peer(1)).unwrap().state, ServerState::Draining);
    assert_eq!(orderly.active().count(), 2);
}

#[test]
fn a_change_is_on_so_many_servers_that_who_takes_over_sees_it() {
    for (count, copies) in [(2, 2), (3, 2), (3, 3), (4, 2), (5, 3), (8, 8), (1, 1), (4, 1)] {
        let table = table(count, copies);
        let all = table.servers.len();
        // Any that read as many as must be reached, and any that were written, have one in common.
        assert!(table.quorum() + table.change_quorum() > all, "{count} servers, {copies} copies");
        // And any that were read have one of any that have all copies of a record.
        assert!(table.quorum() + usize::from(copies) > all);
    }
}

// SPEC: B11
#[test]
fn the_mirroring_table_names_enough_servers_that_there_are() {
    let (three, facts) = (table(3, 2), Facts::default());
    let place = |number: u8| Place { server: peer(number), unit: None };
    let mirror = |places: Vec<Place>| Change::Mirror { writer: peer(50), places };
    let named = three.change(&mirror(vec![place(1), place(2), place(1)]), &facts).unwrap();
    assert_eq!(named.mirrors_of(&peer(50)).len(), 2);
    assert!(named.mirrors_of(&peer(51)).is_empty());
    assert_eq!(three.change(&mirror(vec![place(1)]), &facts), {
        Err(TableError::Mirrors { writer: peer(50), copies: 2 }.into())
    });
    assert_eq!(three.change(&mirror(vec![place(1), place(9)]), &facts), {
        Err(TableError::NoSuchServer(peer(9)).into())
    });
    let refused = named.change(&Change::Drain(peer(1)), &facts).unwrap_err();
    assert_eq!(refused, TableError::Mirrors { writer: peer(50), copies: 2 }.into());
    let replaced =
        named.change(&Change::Replace { old: peer(1), new: server(4), is_lost: false }, &facts).unwrap();
    assert!(replaced.mirrors_of(&peer(50)).contains(&place(4)), "who comes stands where who goes stood");
    assert!(named.change(&mirror(Vec::new()), &facts).unwrap().mirrors.is_empty());
}

// SPEC: B15
#[test]
fn servers_that_share_everything_make_no_array_unless_that_is_allowed_by_name() {
    let mut both = table(2, 2);
    both.servers[1].host = both.servers[0].host.clone();
    let refused = both.check().unwrap_err();
    assert!(refused.to_string().contains("host:10.0.0.1"), "{refused}");
    both.allowed_together.insert(Shared::Host(label("10.0.0.1")));
    both.check().unwrap();
    let forbid = Change::Forbid(Shared::Host(label("10.0.0.1")));
    assert!(matches!(
        both.change(&forbid, &Facts::default()),
        Err(ChangeError::Table(TableError::Together { .. }))
    ));

    let mut switch = table(2, 2);
    switch.servers.iter_mut().for_each(|server| server.zone = Some(label("switch-1")));
    assert!(switch.check().unwrap_err().to_string().contains("zone:switch-1"));
}

#[test]
fn servers_on_loopback_are_one_machine_that_may_have_all_copies() {
    let local = |number: u16| {
        ServerEntry::new(peer(u8::try_from(number).unwrap()), SocketAddr::from(([127, 0, 0, 1], number)))
    };
    let table = Table::first(vec![local(1), local(2)], 2, BTreeSet::new());
    table.check().unwrap();
    assert_eq!(table.allowed_together, BTreeSet::from([Shared::Host(label("127.0.0.1"))]));
    assert_eq!(table.all_may_be_on(), [Shared::Host(label("127.0.0.1"))], "and `check` says so");
    assert!(Table::first((1..=3).map(server).collect(), 2, BTreeSet::new()).all_may_be_on().is_empty());
    let same = Table::first(vec![server(1), ServerEntry { peer: peer(2), ..server(1) }], 2, BTreeSet::new());
    assert!(same.check().is_err(), "one machine elsewhere is no default");
}

#[test]
fn a_configuration_moves_servers_that_are_here_and_brings_none_in() {
    let drained = table(3, 2).change(&Change::Drain(peer(3)), &Facts::default()).unwrap();
    let seeds: Vec<_> = (1..=3).map(server).collect();
    assert_eq!(drained.with_seeds(&seeds, &BTreeSet::new(), 2), None, "it says the same");
    let more = table(3, 2).with_seeds(&seeds, &BTreeSet::new(), 3).unwrap();
    assert_eq!((more.copies, more.lacking, more.quorum()), (3, 1, 2), "what is there still has two");
    let fewer = table(3, 3).with_seeds(&seeds, &BTreeSet::new(), 2).unwrap();
    assert_eq!((fewer.copies, fewer.lacking, fewer.quorum()), (2, 0, 2));
    let mut moved = server(3);
    moved.address = "10.9.9.9:1".parse().unwrap();
    let next = drained.with_seeds(&[moved.clone(), server(8)], &BTreeSet::new(), 2).unwrap();
    assert_eq!((next.version, next.servers.len()), (3, 3));
    assert_eq!(next.server(&peer(3)).unwrap().address, moved.address);
    assert_eq!(next.server(&peer(3)).unwrap().state, ServerState::Draining);
}

#[test]
fn impossible_tables_are_refused() {
    let check = |change: fn(&mut Table)| {
        let mut table = table(3, 2);
        change(&mut table);
        table.check().unwrap_err().to_string()
    };
    assert!(check(|table| table.copies = 0).contains("1 to 8"));
    assert!(check(|table| table.copies = 9).contains("1 to 8"));
    assert!(check(|table| table.copies = 4).contains("add servers first"));
    assert!(check(|table| table.lacking = 2).contains("not a table"));
    assert!(check(|table| table.servers[0].group = 0).contains("from 1 to 8"));
    assert!(check(|table| table.servers.push(server(1))).contains("twice"));
    let bad = table(3, 2).change(&Change::Add(ServerEntry { peer: peer(9), ..server(1) }), &Facts::default());
    assert_eq!(bad, Err(TableError::SameAddress(server(1).address).into()));
}

#[test]
fn a_table_is_these_bytes() {
    let mut table = table(2, 2);
    (table.epoch, table.version) = (Epoch(3), 300);
    table.servers[1].zone = Some(label("z"));
    table.servers[1].group = 2;
    table.servers[1].state = ServerState::Draining;
    table.servers.push(server(3));
    table.mirrors.insert(
        peer(50),
        vec![Place { server: peer(1), unit: Some(UnitId([7; 16])) }, Place { server: peer(3), unit: None }],
    );
    table.allowed_together.insert(Shared::Host(label("h")));
    table.readers.insert(peer(51));
    table.gone.push_back(Gone { peer: peer(60), is_lost: true });
    let bytes = table.encode();

    let mut expected = b"LTRTABL1".to_vec();
    expected.extend_from_slice(&[3, 0xAC, 0x02, 2, 0]); // epoch, version (varint), copies, lacking
    let put_peer = |expected: &mut Vec<u8>, number: u8| {
        let bytes = peer(number).to_bytes();
        expected.push(u8::try_from(bytes.len()).unwrap());
        expected.extend_from_slice(&bytes);
    };
    let put_text = |expected: &mut Vec<u8>, text: &str| {
        expected.push(u8::try_from(text.len()).unwrap());
        expected.extend_from_slice(text.as_bytes());
    };
    expected.push(3); // servers
    for number in 1..=3 {
        put_peer(&mut expected, number);
        expected.extend_from_slice(&[0, 10, 0, 0, number, 0xD8, 0x36]); // IPv4, address, port 7000 (varint)
        put_text(&mut expected, &format!("10.0.0.{number}"));
        expected.push(0); // no disk named
        if number == 2 {
            expected.extend_from_slice(&[1, 1, b'z', 2, 1]); // zone, group, draining
        } else {
            expected.extend_from_slice(&[0, 1, 0]); // no zone, group, active
        }
    }
    expected.push(1); // mirrors: one relay
    put_peer(&mut expected, 50);
    expected.push(2);
    put_peer(&mut expected, 1);
    expected.push(1);
    expected.extend_from_slice(&[7; 16]);
    put_peer(&mut expected, 3);
    expected.push(0);
    expected.push(1); // allowed together
    put_text(&mut expected, "host:h");
    expected.push(1); // other relays that read
    put_peer(&mut expected, 51);
    expected.push(1); // gone
    put_peer(&mut expected, 60);
    expected.push(1);
    let crc = crc32c::crc32c(&expected);
    expected.extend_from_slice(&crc.to_le_bytes());
    assert_eq!(bytes, expected);
    assert_eq!(Table::decode(&bytes), Ok(table));
}

#[test]
fn a_damaged_table_is_none() {
    let bytes = table(3, 2).encode();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(Table::decode(&damaged).is_err(), "byte {at}");
        assert!(Table::decode(&bytes[..at]).is_err(), "cut at {at}");
    }
    assert!(Table::decode(&[&bytes[..], &[0]].concat()).is_err());
    assert_eq!(Table::decode(&vec![0; TABLE_LEN_MAX + 1]), Err(DecodeError::Malformed));
}

#[test]
fn the_largest_table_fits() {
    let long = |number: usize| label(&format!("{number:0>64}"));
    let mut large = table(3, 2);
    large.servers = (0..SERVERS_MAX)
        .map(|number| ServerEntry {
            host: long(number),
            disk: Some(long(number)),
            zone: Some(long(number)),
            group: 8,
            ..ServerEntry::new(
                PeerId::random(),
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap(),
            )
        })
        .collect();
    let places = |server: &ServerEntry| Place { server: server.peer, unit: Some(UnitId([0xFF; 16])) };
    for _ in 0..3 {
        large.mirrors.insert(PeerId::random(), large.servers.iter().map(places).collect());
    }
    large.allowed_together = (0..ALLOWED_MAX).map(|number| Shared::Host(long(number))).collect();
    large.readers = (0..READERS_MAX).map(|_| PeerId::random()).collect();
    large.gone = (0..GONE_MAX).map(|_| Gone { peer: PeerId::random(), is_lost: false }).collect();
    large.check().unwrap();
    let bytes = large.encode();
    assert!(bytes.len() < TABLE_LEN_MAX, "{}", bytes.len());
    assert_eq!(Table::decode(&bytes), Ok(large));
}

proptest! {
    #[test]
    fn bytes_from_anywhere_never_panic(mut body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Table::decode(&body);
        body.splice(..0, *MAGIC);
        let crc = crc32c::crc32c(&body);
        body.extend_from_slice(&crc.to_le_bytes());
        let _ = Table::decode(&body);
    }

    /// Whatever is asked in whatever order: what is in force could be, and never leaves too few servers.
    #[test]
    fn changes_in_any_order_leave_a_table_that_can_be(
        changes in proptest::collection::vec((0..8_u8, 1..7_u8, 1..7_u8, any::<bool>()), 0..40)
    ) {
        let mut now = table(3, 2);
        for (kind, one, other, flag) in changes {
            let change = match kind {
                0 => Change::Add(server(one)),
                1 => Change::Drain(peer(one)),
                2 => Change::Remove(peer(one)),
                3 => Change::Lose(peer(one)),
                4 => Change::Replace { old: peer(one), new: server(other), is_lost: flag },
                5 => Change::Mirror {
                    writer: peer(50),
                    places: [one, other].map(|number| Place { server: peer(number), unit: None }).to_vec(),
                },
                6 => Change::Readers([one, other].map(peer).into()),
                _ => Change::Restored,
            };
            let facts = if flag { needed(&[one]) } else { Facts::default() };
            if let Ok(next) = now.change(&change, &facts) {
                prop_assert_eq!(next.check(), Ok(()));
                prop_assert!(next.stamp() > now.stamp());
                prop_assert!(next.active().count() >= 2);
                prop_assert_eq!(Table::decode(&next.encode()), Ok(next.clone()));
                now = next;
            }
        }
    }
}
