//! What a running relay says of its storage array, and changes in it.

use lighter_shell::count;
use lighter_storage::{
    Array, ArrayStatus, Change, ChangeError, ServerState, ServerStatus, Table, TableChangeError,
};
use serde_json::{Value, json};

use crate::control::Reply;

/// The array for `array status`: figures under names, and what a person should do about them.
pub(super) fn describe(array: &Array) -> Value {
    let (status, table) = (array.status(), array.table());
    let classes = status.classes.iter().map(|(class, count)| (class.days().to_string(), json!(count)));
    let mirrors = table.mirrors.iter().map(|(writer, places)| {
        let place = |place: &lighter_storage::Place| match place.unit {
            None => place.server.to_string(),
            Some(unit) => format!("{}/{unit}", place.server),
        };
        (writer.to_string(), json!(places.iter().map(place).collect::<Vec<_>>()))
    });
    json!({
        "writable": status.writable,
        "fenced": status.fenced,
        "copies": status.copies,
        "acknowledge_after": status.acknowledge_after,
        "bytes_behind": status.behind_bytes,
        "table_version": status.table_version,
        "epoch": status.epoch.0,
        "servers": status.servers.iter().map(server).collect::<Vec<_>>(),
        "segments": status.segments,
        "segments_by_class_days": classes.collect::<serde_json::Map<_, _>>(),
        "segments_unsealed": status.unsealed,
        "segments_under_replicated": status.under_replicated,
        "servers_lost": status.lacking,
        "copies_to_make": status.heal.copies_left,
        "bytes_to_copy": status.heal.bytes_left,
        "seconds_left": status.heal.time_left.map(|left| left.as_secs()),
        "copies_made": status.heal.copies_made,
        "bytes_copied": status.heal.bytes_made,
        "copies_dropped": status.heal.dropped,
        "bad_copies": status.bad_copies,
        "fallovers": status.fallovers,
        "segments_gone_on": status.went_on,
        "allowed_together": table.allowed_together.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "mirrors": mirrors.collect::<serde_json::Map<_, _>>(),
        "to_do": to_do(&status, &table),
    })
}

fn server(server: &ServerStatus) -> Value {
    let entry = &server.entry;
    json!({
        "peer": server.peer.to_string(),
        "address": entry.address.to_string(),
        "available": server.live,
        "state": entry.state,
        "group": entry.group,
        "host": entry.host.as_str(),
        "disk": entry.disk.as_ref().map(|name| name.as_str()),
        "zone": entry.zone.as_ref().map(|name| name.as_str()),
        "quarantined": server.quarantined,
        "queue": server.queue,
        "latency_us": server.latency.map(|latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)),
        "total_bytes": server.total,
        "free_bytes": server.free,
        "has_room": server.live.then_some(server.has_room),
        "segments": server.segments,
        "segments_needed": server.needed,
        "object_store": server.objects.map(|objects| json!({
            "reached": objects.is_well,
            "segments": objects.segments,
            "bytes": objects.bytes,
            "local_sealed_bytes": objects.local_bytes,
            "objects_to_remove": objects.strays,
        })),
    })
}

/// What somebody should see to: empty on a good day.
fn to_do(status: &ArrayStatus, table: &Table) -> Vec<String> {
    let mut todo = Vec::new();
    if status.fenced {
        todo.push("another relay has taken the array over: stop this one".to_owned());
    }
    for server in
        status.servers.iter().filter(|server| server.objects.is_some_and(|objects| !objects.is_well))
    {
        todo.push(format!(
            "the object store of {} cannot be reached, or refuses: its log says why; what is there is read from other copies",
            server.entry.address
        ));
    }
    for server in &status.servers {
        let (peer, address) = (server.peer, server.entry.address);
        match server.entry.state {
            _ if !server.live => todo.push(format!(
                "{peer} at {address} is away: bring it back, or `array replace` it with --lost if its data is gone"
            )),
            ServerState::Draining if server.needed == 0 => {
                todo.push(format!("{peer} is drained: `array remove {peer}`"));
            }
            ServerState::Draining => {}
            ServerState::Active if !server.has_room => todo.push(format!(
                "{peer} at {address} is full ({} MiB free) and takes nothing new: make room on its disks, or `array add` another server",
                server.free >> 20
            )),
            ServerState::Active if server.quarantined => todo.push(format!(
                "{peer} at {address} failed or was slow a short while ago, and others are preferred: if it stays so, look at its log, disk and network"
            )),
            ServerState::Active => {}
        }
    }
    let is_full = |server: &&ServerStatus| server.live && !server.has_room;
    if !status.writable && !status.fenced && status.servers.iter().any(|server| is_full(&server)) {
        todo.push("senders are told to try again later: too few servers have room".to_owned());
    }
    if status.under_replicated > 0 {
        let (segments, copies) = (status.under_replicated, status.copies);
        let segments = count(segments, "segment has", "segments have");
        todo.push(format!("{segments} fewer than {copies} good copies that are known of"));
    }
    if status.lacking > 0 {
        let lost = status.lacking;
        todo.push(format!(
            "copies of {} are being made again: until then, the relay starts only if all servers are there",
            count(lost, "lost server", "lost servers")
        ));
    }
    if status.acknowledge_after < status.copies {
        let (after, copies) = (status.acknowledge_after, status.copies);
        todo.push(format!(
            "mail is acknowledged after {after} of {copies} copies, as array.acknowledge_after says: one disk that dies may take the last moment's mail with it"
        ));
    }
    todo.extend(table.all_may_be_on().into_iter().map(|shared| {
        format!("all copies may be on {shared}, which was allowed: losing it loses mail. `array add` a server elsewhere, then `array forbid {shared}`")
    }));
    todo
}

/// Changes the array, and says what it is then.
pub(super) async fn change(array: &Array, change: &Change) -> Reply {
    match array.change_table(change).await {
        Ok(table) => Reply::Answer(json!({
            "changed": true,
            "table_version": table.version,
            "servers": table.servers.len(),
        })),
        Err(TableChangeError::Refused(ChangeError::Unchanged)) => Reply::Answer(json!({
            "changed": false,
            "table_version": array.table().version,
            "servers": array.table().servers.len(),
        })),
        Err(error) => Reply::Error(error.to_string()),
    }
}
