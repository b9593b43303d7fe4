//! All that can happen to one delivery, in every order, up to so many faults: a model check of both machines.
//!
//! The machines are the real ones ([`Offering`](lighter_protocol::offer::Offering), [`Pull`](lighter_protocol::pull::Pull),
//! with their receipts): values that are cloned at each fork. Around them are shells as small as can be, disks that keep
//! what was synced, and a network that loses, doubles, delays and reorders. A fault is what need not happen: something
//! lost or doubled, a stream that breaks, lies, stands still or is put off, a disk that fails, a crash, a timer that runs
//! out early. Everything else happens in any order, at no cost.
//!
//! In every state: nothing is let go of without a receipt on both disks, nothing is receipted that is not all synced, no
//! forged receipt is taken, nothing is asked for that is on disk, nothing is received again that is receipted. From every
//! state: where nothing goes wrong any more, all is delivered, receipted and let go of, and everybody is at rest.
//! `LIGHTER_MODEL_FURTHER=1` allows for one fault more than is quick. `tests/delivery` does the same with many more faults and sizes, at random.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test: what fails here is a failed test"
)]

mod actions;
mod explore;
mod facts;
mod steps;
mod world;

use explore::{Explored, Explorer};
use facts::Facts;
use lighter_protocol::blob::PORTION_LEN;
use world::Flaw;

fn explore(holders: u8, blobs: &[u64], faults_max: usize, flaw: Option<Flaw>) -> Result<Explored, String> {
    Explorer::new(&Facts::new(holders, blobs), flaw).run(faults_max)
}

fn ends_well(holders: u8, blobs: &[u64], faults_max: usize) {
    let further: usize = std::env::var("LIGHTER_MODEL_FURTHER").map_or(0, |further| further.parse().unwrap());
    match explore(holders, blobs, faults_max + further, None) {
        Ok(Explored { states, transitions }) => {
            println!("{states} states, {transitions} transitions");
            // Less than that, and the model does not do what it is for.
            assert!(states > 10_000);
        }
        Err(wrong) => panic!("{wrong}"),
    }
}

// SPEC: D3
// SPEC: D4
#[test]
fn whatever_goes_wrong_three_times_a_delivery_is_received_once_and_then_let_go_of() {
    ends_well(1, &[100], 3);
}

#[test]
fn a_delivery_of_several_portions_in_several_streams_is_received_once_and_then_let_go_of() {
    ends_well(1, &[2 * PORTION_LEN, 100], 1);
}

#[test]
fn a_delivery_that_a_relay_and_a_sender_hold_is_received_once_and_both_let_go_of_it() {
    ends_well(2, &[100, 200], 1);
}

// SPEC: A6
// SPEC: A19
#[test]
fn a_delivery_that_is_pushed_is_received_once_whatever_becomes_of_the_pushes() {
    pushed(1, &[100, 200], 2);
}

// SPEC: A6
#[test]
fn a_delivery_that_one_pushes_and_another_holds_is_received_once_and_both_let_go_of_it() {
    pushed(2, &[PORTION_LEN + 100], 1);
}

fn pushed(holders: u8, blobs: &[u64], faults_max: usize) {
    let further: usize = std::env::var("LIGHTER_MODEL_FURTHER").map_or(0, |further| further.parse().unwrap());
    let facts = Facts { pushes: true, ..Facts::new(holders, blobs) };
    match Explorer::new(&facts, None).run(faults_max + further) {
        Ok(Explored { states, transitions }) => {
            println!("{states} states, {transitions} transitions");
            assert!(states > 10_000);
        }
        Err(wrong) => panic!("{wrong}"),
    }
}

#[test]
fn a_shell_that_breaks_its_promises_is_found() {
    let expected = [
        (Flaw::ReceiptBeforeSync, "is not all on disk"),
        (Flaw::ReceiptInMemory, "has no receipt on disk"),
        (Flaw::ReleaseWhenServed, "stuck"),
        (Flaw::ReleaseBeforeRecord, "let go, and has no receipt on disk"),
        (Flaw::LostReceiptIgnored, "stuck"),
        (Flaw::NoTimer, "stuck"),
    ];
    for (flaw, says) in expected {
        let found = explore(1, &[100], 1, Some(flaw)).expect_err("not found");
        assert!(found.contains(says), "{flaw:?}: {found}");
    }
}
