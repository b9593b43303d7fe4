//! `lighter-relay array …`: asks the running relay for its array's state, or for a change of it.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use lighter_protocol::PeerId;
use lighter_shell::count;
use lighter_storage::{Change, ServerEntry};
use serde_json::Value;

use super::{CommandError, ask, print};
use crate::cli::{ArrayCommand, At};
use crate::control::Question;

pub(super) async fn run(data: &Path, command: ArrayCommand, json: bool) -> Result<(), CommandError> {
    let Some(change) = change_of(command) else {
        let status = ask::ask(data, Question::Array).await?;
        if json {
            print(&status, true);
        } else {
            show(&status);
        }
        return Ok(());
    };
    print(&ask::ask(data, Question::Change { change: Box::new(change) }).await?, json);
    Ok(())
}

/// What a command changes; `None`: it only looks.
fn change_of(command: ArrayCommand) -> Option<Change> {
    Some(match command {
        ArrayCommand::Status => return None,
        ArrayCommand::Add { peer, address, at } => Change::Add(entry(peer, address, at)),
        ArrayCommand::Drain { peer } => Change::Drain(peer),
        ArrayCommand::Remove { peer, lost: false } => Change::Remove(peer),
        ArrayCommand::Remove { peer, lost: true } => Change::Lose(peer),
        ArrayCommand::Replace { old, new, address, lost, at } => {
            Change::Replace { old, new: entry(new, address, at), is_lost: lost }
        }
        ArrayCommand::Mirror { relay, places } => Change::Mirror { writer: relay, places },
        ArrayCommand::Allow { shared } => Change::Allow(shared),
        ArrayCommand::Forbid { shared } => Change::Forbid(shared),
    })
}

fn entry(peer: PeerId, address: SocketAddr, at: At) -> ServerEntry {
    let entry = ServerEntry::new(peer, address);
    ServerEntry {
        host: at.host.unwrap_or(entry.host),
        disk: at.disk,
        zone: at.zone,
        group: at.group.unwrap_or(entry.group),
        ..entry
    }
}

/// For a person: a line for the whole, one for each server, and what to do.
#[expect(clippy::print_stdout, reason = "an answer is what a command is for")]
fn show(status: &Value) {
    print!("{}", as_text(status));
}

fn as_text(status: &Value) -> String {
    let number = |name: &str| status[name].as_u64().unwrap_or_default();
    let mut text = String::new();
    let writable = if status["writable"] == true { "takes mail" } else { "TAKES NO MAIL" };
    let copies = match (number("copies"), number("acknowledge_after")) {
        (copies, after) if after < copies => {
            let (copies, behind) =
                (count(copies, "copy", "copies"), count(number("bytes_behind"), "byte", "bytes"));
            format!("{copies}, acknowledged after {after}, {behind} behind")
        }
        (copies, _) => count(copies, "copy", "copies"),
    };
    let _ = writeln!(
        text,
        "{writable}; {copies}; {}, {} not sealed, {} under-replicated; table {}",
        count(number("segments"), "segment", "segments"),
        number("segments_unsealed"),
        number("segments_under_replicated"),
        number("table_version"),
    );
    for server in status["servers"].as_array().into_iter().flatten() {
        let of = |name: &str| server[name].as_str().unwrap_or_default();
        let state = match (server["available"] == true, server["quarantined"] == true) {
            (false, _) => "AWAY",
            (true, _) if server["has_room"] == false => "FULL",
            (true, true) => "in quarantine",
            (true, false) => of("state"),
        };
        let of_server = |name: &str| server[name].as_u64().unwrap_or_default();
        let mib = |name: &str| of_server(name) >> 20;
        let _ = writeln!(
            text,
            "{}  {}  {state}  group {}  {}, {} it  {} of {} MiB free  host:{}{}{}",
            of("peer"),
            of("address"),
            server["group"],
            count(of_server("segments"), "segment", "segments"),
            count(of_server("segments_needed"), "needs", "need"),
            mib("free_bytes"),
            mib("total_bytes"),
            of("host"),
            named(" disk:", of("disk")),
            named(" zone:", of("zone")),
        );
        let objects = &server["object_store"];
        if objects.is_object() {
            let mib = |name: &str| objects[name].as_u64().unwrap_or_default() >> 20;
            let reached = if objects["reached"] == true { "" } else { "  NOT REACHED" };
            let segments = count(objects["segments"].as_u64().unwrap_or_default(), "segment", "segments");
            let (bytes, here) = (mib("bytes"), mib("local_sealed_bytes"));
            let _ =
                writeln!(text, "    object store: {segments}, {bytes} MiB; {here} MiB sealed here{reached}");
        }
    }
    for line in status["to_do"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let _ = writeln!(text, "- {line}");
    }
    text
}

fn named(kind: &str, name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("{kind}{name}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_person_reads_the_array_in_a_few_lines() {
        let status = json!({
            "writable": true, "copies": 2, "acknowledge_after": 2, "segments": 7, "segments_unsealed": 1, "segments_under_replicated": 0,
            "table_version": 3,
            "servers": [{
                "peer": "12D3", "address": "10.0.0.1:7000", "available": true, "quarantined": false, "state": "draining",
                "group": 1, "segments": 7, "segments_needed": 2, "free_bytes": 5_u64 << 20, "total_bytes": 9_u64 << 20,
                "host": "10.0.0.1", "disk": null, "zone": "room-1", "has_room": true,
            }, {
                "peer": "12D4", "address": "10.0.0.2:7000", "available": true, "quarantined": true, "state": "active",
                "group": 1, "segments": 7, "segments_needed": 2, "free_bytes": 5_u64 << 20, "total_bytes": 9_u64 << 20,
                "host": "10.0.0.2", "disk": null, "zone": null, "has_room": false,
            }],
            "to_do": ["see to it"],
        });
        assert_eq!(
            as_text(&status),
            "takes mail; 2 copies; 7 segments, 1 not sealed, 0 under-replicated; table 3\n\
             12D3  10.0.0.1:7000  draining  group 1  7 segments, 2 need it  5 of 9 MiB free  host:10.0.0.1 zone:room-1\n\
             12D4  10.0.0.2:7000  FULL  group 1  7 segments, 2 need it  5 of 9 MiB free  host:10.0.0.2\n\
             - see to it\n"
        );
        let later = json!({
            "writable": true, "copies": 2, "acknowledge_after": 1, "bytes_behind": 4096, "segments": 7,
            "segments_unsealed": 1, "segments_under_replicated": 0, "table_version": 3,
        });
        assert_eq!(
            as_text(&later),
            "takes mail; 2 copies, acknowledged after 1, 4096 bytes behind; 7 segments, 1 not sealed, \
             0 under-replicated; table 3\n"
        );
        let few = json!({ "writable": true, "copies": 1, "acknowledge_after": 1, "segments": 1, "table_version": 3 });
        assert_eq!(
            as_text(&few),
            "takes mail; 1 copy; 1 segment, 0 not sealed, 0 under-replicated; table 3\n"
        );
    }

    #[test]
    fn each_command_is_a_change() {
        let peer = lighter_transport::Identity::generate().peer();
        assert_eq!(change_of(ArrayCommand::Status), None);
        assert_eq!(change_of(ArrayCommand::Remove { peer, lost: false }), Some(Change::Remove(peer)));
        assert_eq!(change_of(ArrayCommand::Remove { peer, lost: true }), Some(Change::Lose(peer)));
        let at = At { host: None, disk: None, zone: Some("z".parse().unwrap()), group: Some(2) };
        let address = "10.0.0.1:7000".parse().unwrap();
        let Some(Change::Add(entry)) = change_of(ArrayCommand::Add { peer, address, at }) else {
            panic!("no Add")
        };
        assert_eq!((entry.host.as_str(), entry.group, entry.disk), ("10.0.0.1", 2, None));
    }
}
