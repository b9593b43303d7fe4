use proptest::prelude::*;

use super::*;

fn v4(last: u8) -> SocketAddr {
    ([192, 0, 2, last], 7443).into()
}

fn v6(last: u16) -> SocketAddr {
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 7443).into()
}

fn direct(address: SocketAddr) -> Candidate {
    Candidate::Address { way: Way::Direct, address }
}

fn lan(address: SocketAddr) -> Candidate {
    Candidate::Address { way: Way::Lan, address }
}

fn relay(of: u8) -> PeerId {
    lighter_protocol::Keypair::ed25519_from_bytes([of; 32]).unwrap().public().to_peer_id()
}

/// What is begun, and when, in milliseconds; nothing ever answers.
fn begun(plan: &mut Plan, start: Instant) -> Vec<(u128, Candidate)> {
    let mut all = Vec::new();
    let mut now = start;
    loop {
        while let Some(candidate) = plan.poll(now) {
            all.push(((now - start).as_millis(), candidate));
        }
        match plan.next_time() {
            Some(next) => {
                assert!(next > now, "a time that has come leaves nothing to be begun");
                now = next;
            }
            None => return all,
        }
    }
}

#[test]
fn the_better_way_has_a_head_start_and_helpers_come_when_nothing_opened() {
    let start = Instant::now();
    let known = Known {
        lan: vec![v4(1)],
        registered: vec![v4(2), v6(3), v4(1)],
        helpers: vec![relay(1), relay(2), relay(1)],
        has_ipv6: true,
    };
    let all = begun(&mut Plan::new(&known, start), start);
    let expected = [
        (0, lan(v4(1))),
        (250, direct(v6(3))),
        (500, direct(v4(2))),
        (500, Candidate::Helper(relay(1))),
        (750, Candidate::Helper(relay(2))),
    ];
    assert_eq!(all, expected);
    let known = Known { has_ipv6: false, ..known };
    let all = begun(&mut Plan::new(&known, start), start);
    assert_eq!(all[1..3].iter().map(|(_, c)| *c).collect::<Vec<_>>(), [direct(v4(2)), direct(v6(3))]);
}

#[test]
fn a_failure_makes_way_for_the_next_at_once() {
    let (start, known) = (
        Instant::now(),
        Known { registered: vec![v4(1), v4(2)], helpers: vec![relay(1)], ..Known::default() },
    );
    let mut plan = Plan::new(&known, start);
    assert_eq!((plan.poll(start), plan.poll(start)), (Some(direct(v4(1))), None));
    let at = start + Duration::from_millis(10);
    plan.handle_failed(direct(v4(1)), "the peer refused", at);
    assert_eq!((plan.poll(at), plan.poll(at)), (Some(direct(v4(2))), None));
    let at = start + Duration::from_millis(20);
    plan.handle_failed(direct(v4(2)), "the peer is busy", at);
    assert_eq!((plan.poll(at), plan.poll(at)), (Some(Candidate::Helper(relay(1))), None));
    assert!(!plan.is_over());
    plan.handle_failed(Candidate::Helper(relay(1)), "no hole", at);
    assert!(plan.is_over());
    let said = plan.into_failures().to_string();
    assert!(
        said.starts_with("at 192.0.2.1:7443: the peer refused; at 192.0.2.2:7443: the peer is busy; with")
    );
}

#[test]
fn a_store_without_an_address_is_reached_with_help_at_once_and_one_without_help_either_not_at_all() {
    let start = Instant::now();
    let known = Known { helpers: vec![relay(1)], ..Known::default() };
    assert_eq!(begun(&mut Plan::new(&known, start), start), [(0, Candidate::Helper(relay(1)))]);
    let plan = Plan::new(&Known::default(), start);
    assert!(plan.is_over() && plan.into_failures().is_empty());
}

fn any_known() -> impl Strategy<Value = Known> {
    let addresses = || prop::collection::vec((0_u8..20).prop_map(v4), 0..24);
    let v6s = prop::collection::vec((0_u16..20).prop_map(v6), 0..6);
    let helpers = prop::collection::vec((1_u8..8).prop_map(relay), 0..8);
    (addresses(), addresses(), v6s, helpers, any::<bool>()).prop_map(|(lan, v4s, v6s, helpers, has_ipv6)| {
        let registered = v4s.into_iter().chain(v6s).collect();
        Known { lan, registered, helpers, has_ipv6 }
    })
}

proptest! {
    // Whatever is known, and whatever fails when: nothing is tried twice, never too much, everything that was begun is
    // told of once, helpers wait for the addresses, and it ends.
    #[test]
    fn every_plan_ends_and_tries_each_way_once(
        known in any_known(),
        fails in prop::collection::vec((any::<bool>(), 0_u64..400), 1..64),
    ) {
        let start = Instant::now();
        let mut plan = Plan::new(&known, start);
        let (mut now, mut tried, mut running) = (start, Vec::new(), Vec::new());
        let mut fails = fails.into_iter().cycle();
        for _ in 0..1_000 {
            while let Some(candidate) = plan.poll(now) {
                prop_assert!(!tried.contains(&candidate), "{} tried twice", candidate);
                if matches!(candidate, Candidate::Helper(_)) {
                    let address = |c: &Candidate| matches!(c, Candidate::Address { .. });
                    let early = now - start < HELPER_HEAD_START && tried.iter().all(address);
                    prop_assert!(!early || !running.iter().any(address));
                }
                tried.push(candidate);
                running.push(candidate);
            }
            if plan.is_over() {
                break;
            }
            let (fail, after) = fails.next().unwrap();
            let next = plan.next_time();
            if !running.is_empty() && (fail || next.is_none()) {
                now += Duration::from_millis(after);
                now = next.map_or(now, |next| now.min(next));
                let failed = running.remove(0);
                plan.handle_failed(failed, "no", now);
            } else if let Some(next) = next {
                now = now.max(next);
            }
        }
        prop_assert!(plan.is_over());
        let addresses = tried.iter().filter(|c| matches!(c, Candidate::Address { .. })).count();
        prop_assert!(addresses <= ADDRESSES_TRIED_MAX);
        prop_assert!(tried.len() - addresses <= HELPERS_TRIED_MAX);
        prop_assert_eq!(plan.into_failures().0.len(), tried.len());
    }
}
