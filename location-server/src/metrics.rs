//! What is counted, for Prometheus. Nothing in it names a person.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Which route was asked, and with which status it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route as written in the API, not as asked.
    pub route: &'static str,
    /// The HTTP status.
    pub status: u16,
}

/// All counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests by route and status.
    pub requests: Family<RequestLabels, Counter>,
    /// Names looked up.
    pub names: Counter,
    /// Names answered with a store.
    pub names_found: Counter,
    /// Stores enrolled.
    pub stores: Gauge,
    /// Stores online.
    pub stores_online: Gauge,
    /// Presence streams open.
    pub presence_streams: Gauge,
    /// Rows that did not read as one at start.
    pub rows_damaged: Gauge,
    /// 1 while the files that name the mailboxes of hosted stores cannot be used, and those stores keep what they have.
    pub hosted_files_unusable: Gauge,
    /// How long commits took.
    pub commit_seconds: Histogram,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("lighter_location");
        // 0.1 ms to 1.6 s: an fdatasync's median is 0.3 ms, its 99th percentile 8 ms.
        let commit_seconds = Histogram::new(exponential_buckets(0.0001, 2.0, 15));
        let metrics = Self {
            requests: Family::default(),
            names: Counter::default(),
            names_found: Counter::default(),
            stores: Gauge::default(),
            stores_online: Gauge::default(),
            presence_streams: Gauge::default(),
            rows_damaged: Gauge::default(),
            hosted_files_unusable: Gauge::default(),
            commit_seconds: commit_seconds.clone(),
            registry: Registry::default(),
        };
        registry.register("requests", "Requests by route and status", metrics.requests.clone());
        registry.register("names", "Names looked up", metrics.names.clone());
        registry.register("names_found", "Names answered with a store", metrics.names_found.clone());
        registry.register("stores", "Stores enrolled", metrics.stores.clone());
        registry.register("stores_online", "Stores online", metrics.stores_online.clone());
        registry.register("presence_streams", "Presence streams open", metrics.presence_streams.clone());
        registry.register("rows_damaged", "Rows that did not read as one", metrics.rows_damaged.clone());
        let unusable = metrics.hosted_files_unusable.clone();
        registry.register("hosted_files_unusable", "Whether hosted stores' files cannot be used", unusable);
        registry.register("commit_seconds", "How long commits took", commit_seconds);
        Self { registry, ..metrics }
    }

    /// In Prometheus's text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String never fails.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
