//! How the relay is: `/healthz` and `/metrics`. Nothing in it names a person.

use std::fmt::Write;
use std::future::Future;

use lighter_catalog::Ledger;
use lighter_storage::Array;

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
        let live = status.servers.iter().filter(|server| server.live).count() as u64;
        text.gauge("array_writable", "Whether mail can be taken in", u64::from(status.writable));
        text.gauge("array_servers", "Storage servers configured", status.servers.len() as u64);
        text.gauge("array_servers_live", "Storage servers connected and up to date", live);
        text.gauge("array_segments", "Segments known", status.segments as u64);
        text.gauge("array_segments_unsealed", "Segments that wait to be sealed", status.unsealed as u64);
        text.counter("array_bad_copies", "Copies found missing, damaged or different", status.bad_copies);
        text.counter("array_fallovers", "Reads answered from another copy", status.fallovers);
        text.counter("array_written_bytes", "Bytes acknowledged on all copies", status.written_bytes);
        text.counter("array_read_bytes", "Bytes read and verified", status.read_bytes);
        let (open, doubts) = self.ledger.backlog();
        text.gauge("catalog_changes_open", "Changes begun and not yet in the view", open as u64);
        text.gauge("catalog_changes_in_doubt", "Changes whose fate is not known", doubts as u64);
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

/// OpenMetrics text.
#[derive(Default)]
struct Text(String);

impl Text {
    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        let _ = write!(
            self.0,
            "# HELP lighter_relay_{name} {help}.\n# TYPE lighter_relay_{name} gauge\nlighter_relay_{name} {value}\n"
        );
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let _ = write!(
            self.0,
            "# HELP lighter_relay_{name} {help}.\n# TYPE lighter_relay_{name} counter\nlighter_relay_{name}_total {value}\n"
        );
    }
}
