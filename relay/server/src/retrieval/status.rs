//! How the relay is: `/healthz` and `/metrics`. Nothing in it names a person.

use std::fmt::Write;
use std::future::Future;

use lighter_catalog::{DatabaseCounters, Ledger};
use lighter_protocol::PeerId;
use lighter_storage::{Array, ArrayStatus, ServerStatus};

use crate::delivery::DeliveryGauges;

/// How a program is.
pub trait Status: Send + Sync + 'static {
    /// None: well. Otherwise what is wrong, in words for an operator.
    fn trouble(&self) -> Option<&'static str>;

    /// Metrics in Prometheus's text format.
    fn metrics(&self) -> impl Future<Output = String> + Send;
}

/// The relay's: its array, its catalog and its sessions.
#[derive(Clone)]
pub struct RelayStatus {
    ledger: Ledger<Array>,
    array: Array,
    gauges: DeliveryGauges,
}

impl RelayStatus {
    /// How `ledger`, `array` and the sessions counted in `gauges` are.
    pub fn new(ledger: Ledger<Array>, array: Array, gauges: DeliveryGauges) -> Self {
        Self { ledger, array, gauges }
    }
}

impl Status for RelayStatus {
    fn trouble(&self) -> Option<&'static str> {
        let status = self.array.status();
        if status.fenced {
            return Some("another relay has taken the storage array over: stop this one");
        }
        (!status.writable).then_some("too few storage servers: mail is refused for now")
    }

    async fn metrics(&self) -> String {
        let mut text = Text::default();
        let status = self.array.status();
        array(&mut text, &status);
        let (open, doubts) = self.ledger.backlog();
        text.gauge("catalog_changes_open", "Changes begun and not yet in the view", open as u64);
        text.gauge("catalog_changes_in_doubt", "Changes whose fate is not known", doubts as u64);
        if let Some(database) = self.ledger.database() {
            catalog_database(&mut text, &database.counters());
        }
        text.gauge("sessions", "Stores that have a session", self.gauges.sessions() as u64);
        text.gauge(
            "deliveries_offered",
            "Deliveries that are offered or pulled",
            self.gauges.offered() as u64,
        );
        // What the view cannot tell now is left out: a gap in a graph is better than a zero.
        if let Ok(counts) = self.ledger.read(|catalog| catalog.counts()).await {
            text.gauge("messages", "Messages with anything open", counts.messages);
            text.gauge("hand_overs_due", "Hand-overs to the next hop that are due", counts.hand_overs);
            text.gauge("deliveries_waiting", "Deliveries that wait for their store", counts.waiting);
            text.gauge("deliveries_waiting_bytes", "Bytes in them", counts.waiting_bytes);
            text.gauge("deliveries_receipted", "Deliveries receipted whose copy is kept", counts.receipted);
            text.gauge("deliveries_released", "Deliveries let go of", counts.released);
            text.gauge("attachments_referred", "Attachments that messages refer to", counts.references);
            text.gauge("attachments_referred_bytes", "Bytes in them", counts.references_bytes);
            text.gauge("attachments_kept", "Copies of attachments kept for them", counts.copies);
            text.gauge("attachments_kept_bytes", "Bytes in them", counts.copies_bytes);
        }
        text.0.push_str("# EOF\n");
        text.0
    }
}

/// What goes on between the relay and its catalog's database.
fn catalog_database(text: &mut Text, counters: &DatabaseCounters) {
    let in_use = counters.in_use as u64;
    text.gauge("database_connections_in_use", "Connections to the catalog's database in use", in_use);
    text.counter("database_connects", "Connections that were made to it", counters.connects);
    text.counter("database_transactions", "Questions and changes that it answered", counters.transactions);
    text.describe("database_seconds", "How long these took together", "counter");
    let seconds = std::time::Duration::from_micros(counters.transaction_micros).as_secs_f64();
    let _ = writeln!(text.0, "lighter_relay_database_seconds_total {seconds}");
    text.counter("database_retries", "Tries beyond the first: it was away, or busy", counters.retries);
    text.counter("lease_renewals", "Renewals of what this relay holds", counters.renewals);
    text.counter("lease_renewals_failed", "Renewals that failed", counters.failed_renewals);
}

/// What an operator of the array watches; `docs/OPERATING.md` says which of it is an alarm.
fn array(text: &mut Text, status: &ArrayStatus) {
    let live = status.servers.iter().filter(|server| server.live).count() as u64;
    text.gauge("array_writable", "Whether mail can be taken in", u64::from(status.writable));
    text.gauge("array_fenced", "Whether another relay has taken the array over", u64::from(status.fenced));
    text.gauge("array_servers", "Storage servers configured", status.servers.len() as u64);
    text.gauge("array_servers_live", "Storage servers connected and up to date", live);
    text.gauge("array_servers_lagging", "Storage servers read from last, being slow", status.lagging as u64);
    text.gauge(
        "array_servers_lacking",
        "Storage servers lost for good whose copies are still being made again",
        status.lacking as u64,
    );
    // Of one that is away nothing is known but that.
    type Of = fn(&ServerStatus) -> Option<String>;
    let each: [(&str, &str, Of); 12] = [
        ("array_server_live", "Whether a storage server is connected and up to date", |server| {
            Some(u64::from(server.live).to_string())
        }),
        (
            "array_server_quarantined",
            "Whether it failed a short while ago, and others are preferred",
            |server| Some(u64::from(server.quarantined).to_string()),
        ),
        ("array_server_segments", "Segments of which it has a copy, or should have", |server| {
            Some(server.segments.to_string())
        }),
        ("array_server_queue", "Requests that it has not answered yet", |server| {
            server.live.then(|| server.queue.to_string())
        }),
        ("array_server_latency_seconds", "Within this, half of its writes were done", |server| {
            server.latency.map(|latency| latency.as_secs_f64().to_string())
        }),
        ("array_server_size_bytes", "Room on its disks", |server| {
            server.live.then(|| server.total.to_string())
        }),
        ("array_server_free_bytes", "Free room on its disks", |server| {
            server.live.then(|| server.free.to_string())
        }),
        ("array_server_object_store_reached", "Whether its object store answers", |server| {
            Some(u64::from(server.objects?.is_well).to_string())
        }),
        ("array_server_object_store_segments", "Segments whose records are in its object store", |server| {
            Some(server.objects?.segments.to_string())
        }),
        ("array_server_object_store_bytes", "Their bytes there", |server| {
            Some(server.objects?.bytes.to_string())
        }),
        (
            "array_server_object_store_strays",
            "Objects that are being uploaded, or wait to be removed",
            |server| Some(server.objects?.strays.to_string()),
        ),
        (
            "array_server_sealed_local_bytes",
            "Bytes of sealed segments on its own disks, where it has an object store",
            |server| Some(server.objects?.local_bytes.to_string()),
        ),
    ];
    for (name, help, value) in each {
        let known = status.servers.iter().filter_map(|server| Some((server.peer, value(server)?)));
        text.gauges(name, help, known);
    }
    text.gauge(
        "array_key_servers_due",
        "Storage servers that wait for the change of the array key",
        status.rewraps_due as u64,
    );
    text.gauge("array_segments", "Segments known", status.segments as u64);
    text.gauge("array_segments_unsealed", "Segments that wait to be sealed", status.unsealed as u64);
    text.gauge(
        "array_segments_under_replicated",
        "Segments of which fewer good copies are known than promised",
        status.under_replicated as u64,
    );
    text.gauge(
        "array_bytes_behind",
        "Bytes acknowledged before all copies were made, and on their way to the others",
        status.behind_bytes,
    );
    text.counter(
        "array_segments_gone_on_with",
        "Segments closed since a member failed, and gone on with in another",
        status.went_on,
    );
    text.gauge(
        "array_copies_to_make",
        "Copies that are lacking and are to be made",
        status.heal.copies_left as u64,
    );
    text.gauge("array_bytes_to_copy", "Their bytes", status.heal.bytes_left);
    text.counter("array_copies_made", "Copies made anew", status.heal.copies_made);
    text.counter("array_copied_bytes", "Their bytes", status.heal.bytes_made);
    text.counter("array_copies_dropped", "Surplus copies dropped", status.heal.dropped);
    text.counter("array_bad_copies", "Copies found missing, damaged or different", status.bad_copies);
    text.counter("array_fallovers", "Reads answered from another copy", status.fallovers);
    text.counter("array_hedged", "Reads sent to a second copy, the first being slow", status.hedged);
    text.counter("array_written_bytes", "Bytes acknowledged on all copies", status.written_bytes);
    text.counter(
        "array_thinned_bytes",
        "Bytes of dead records given back on each copy",
        status.thinned_bytes,
    );
    text.counter("array_read_bytes", "Bytes read and verified", status.read_bytes);
}

/// OpenMetrics text.
#[derive(Default)]
struct Text(String);

impl Text {
    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.describe(name, help, "gauge");
        let _ = writeln!(self.0, "lighter_relay_{name} {value}");
    }

    /// One value for each server.
    fn gauges(&mut self, name: &str, help: &str, values: impl Iterator<Item = (PeerId, String)>) {
        self.describe(name, help, "gauge");
        for (server, value) in values {
            let _ = writeln!(self.0, "lighter_relay_{name}{{server=\"{server}\"}} {value}");
        }
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.describe(name, help, "counter");
        let _ = writeln!(self.0, "lighter_relay_{name}_total {value}");
    }

    /// A unit is named where the name ends in it, as OpenMetrics has it.
    fn describe(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP lighter_relay_{name} {help}.\n# TYPE lighter_relay_{name} {kind}");
        if let Some(unit) = ["bytes", "seconds"].into_iter().find(|unit| name.ends_with(unit)) {
            let _ = writeln!(self.0, "# UNIT lighter_relay_{name} {unit}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lighter_storage::ServerEntry;
    use lighter_storage::wire::ObjectsHealth;
    use lighter_transport::Identity;

    use super::*;

    /// One that is away.
    fn server(peer: PeerId) -> ServerStatus {
        let entry = ServerEntry::new(peer, ([127, 0, 0, 1], 1).into());
        let (live, quarantined, queue, latency) = (false, false, 0, None);
        ServerStatus {
            peer,
            entry,
            live,
            quarantined,
            queue,
            latency,
            segments: 0,
            needed: 0,
            total: 0,
            free: 0,
            has_room: false,
            objects: None,
        }
    }

    #[test]
    fn the_arrays_metrics_are_open_metrics_with_help_type_and_unit() {
        let peer = Identity::generate().peer();
        let latency = Some(Duration::from_millis(3));
        let objects = ObjectsHealth { has_store: true, segments: 5, bytes: 77, ..ObjectsHealth::default() };
        let servers = vec![
            ServerStatus {
                live: true,
                queue: 2,
                latency,
                total: 10,
                free: 4,
                objects: Some(objects),
                ..server(peer)
            },
            server(Identity::generate().peer()),
        ];
        let status = ArrayStatus { servers, fallovers: 3, hedged: 2, lagging: 1, ..ArrayStatus::default() };
        let mut text = Text::default();
        array(&mut text, &status);
        for line in [
            "# HELP lighter_relay_array_fallovers Reads answered from another copy.",
            "# TYPE lighter_relay_array_fallovers counter",
            "lighter_relay_array_fallovers_total 3",
            "lighter_relay_array_hedged_total 2",
            "lighter_relay_array_servers_lagging 1",
            "# UNIT lighter_relay_array_read_bytes bytes",
            "lighter_relay_array_writable 0",
            &format!("lighter_relay_array_server_live{{server=\"{peer}\"}} 1"),
            &format!("lighter_relay_array_server_free_bytes{{server=\"{peer}\"}} 4"),
            &format!("lighter_relay_array_server_latency_seconds{{server=\"{peer}\"}} 0.003"),
            "# UNIT lighter_relay_array_server_latency_seconds seconds",
            &format!("lighter_relay_array_server_object_store_bytes{{server=\"{peer}\"}} 77"),
            &format!("lighter_relay_array_server_object_store_reached{{server=\"{peer}\"}} 0"),
        ] {
            assert!(text.0.lines().any(|found| found == line), "{line}\n{}", text.0);
        }
        let free = text.0.lines().filter(|line| line.starts_with("lighter_relay_array_server_free_bytes{"));
        assert_eq!(free.count(), 1, "nothing is known of a server that is away");
        for sample in text.0.lines().filter(|line| !line.starts_with('#')) {
            let family = sample.split(['{', ' ']).next().unwrap().trim_end_matches("_total");
            for kind in ["HELP", "TYPE"] {
                let described = text.0.matches(&format!("# {kind} {family} ")).count();
                assert_eq!(described, 1, "{kind} {family}");
            }
        }
    }
}
