//! The metrics of this process, as Prometheus reads them.
//!
//! A recorder for the [`metrics`] facade, through which the xDS server counts too: families and series in order, counters
//! and gauges as one number each, histograms with the same bounds for all that measure the same. Their names are a
//! promise (docs/sidecar/operating.md).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    describe_counter, describe_gauge, describe_histogram, gauge,
};

/// Counter: revisions that were given to Envoy.
pub(super) const REVISIONS: &str = "weft_revisions_total";
/// Gauge: the revision that was given last.
pub(super) const REVISION_SERVED: &str = "weft_revision_served";
/// Gauge: the revision that Envoy accepted last.
pub(super) const REVISION_IN_FORCE: &str = "weft_revision_in_force";
/// Gauge: mistakes in the files as they are now, by `severity`.
pub(super) const MISTAKES: &str = "weft_mistakes";
/// Counter: resources that Envoy rejected.
pub(super) const REJECTIONS: &str = "weft_rejections_total";
/// Counter: directories that could not be watched and are polled.
pub(crate) const WATCH_ERRORS: &str = "weft_watch_errors_total";
/// Histogram: from the saving of a file to Envoy's acceptance of all that it changed.
pub(super) const SAVE_TO_ACK: &str = "weft_save_to_ack_seconds";
/// Gauge: 1 if `/readyz` says so.
pub(super) const READY: &str = "weft_ready";
/// Gauge: 1, with the `version`.
pub(super) const BUILD: &str = "weft_build_info";

/// For what is measured in seconds.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// For what is measured in bytes, or counted.
const BYTES: &[f64] =
    &[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// All families. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Registry(Arc<Mutex<BTreeMap<String, Family>>>);

#[derive(Debug, Default)]
struct Family {
    help: String,
    series: BTreeMap<String, Series>,
}

#[derive(Debug, Clone)]
enum Series {
    Counter(Arc<AtomicU64>),
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Buckets>),
}

/// A histogram: observations by the first bound that is not below them, and their sum.
#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    state: Mutex<(Vec<u64>, f64)>,
}

/// The recorder of the process, with every metric described and those there that have a value from the start.
pub(super) fn install() -> Registry {
    let registry = Registry::default();
    // Another recorder is there only in a process that runs two sidecars, as a test might.
    metrics::set_global_recorder(registry.clone()).ok();
    describe();
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1);
    metrics::counter!(WATCH_ERRORS).absolute(0);
    registry
}

fn describe() {
    weft_xds::server::metric::describe();
    describe_counter!(REVISIONS, "Revisions that were given to Envoy");
    describe_gauge!(REVISION_SERVED, "The revision that was given to Envoy last");
    describe_gauge!(REVISION_IN_FORCE, "The revision that Envoy accepted last");
    describe_gauge!(MISTAKES, "Mistakes in the files as they are now, by severity");
    describe_counter!(REJECTIONS, "Resources that Envoy rejected");
    describe_counter!(WATCH_ERRORS, "Directories that could not be watched and are polled");
    describe_histogram!(SAVE_TO_ACK, Unit::Seconds, "From the saving of a file to its acceptance by Envoy");
    describe_gauge!(READY, "Whether /readyz says that Envoy serves a configuration");
    describe_gauge!(BUILD, "The version of weft-sidecar");
}

impl Registry {
    /// Everything in Prometheus' text format.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        for (name, family) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            family.render(name, &mut text);
        }
        text
    }

    fn describe(&self, name: &KeyName, help: &SharedString) {
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        families.entry(name.as_str().to_owned()).or_default().help = help.to_string();
    }

    fn series(&self, key: &Key, new: impl FnOnce() -> Series) -> Series {
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(key.name().to_owned()).or_default();
        family.series.entry(labels(key)).or_insert_with(new).clone()
    }
}

impl Family {
    fn render(&self, name: &str, text: &mut String) {
        let Some(first) = self.series.values().next() else { return };
        // Writing to a string does not fail.
        writeln!(text, "# HELP {name} {}\n# TYPE {name} {}", self.help, first.kind()).ok();
        for (labels, series) in &self.series {
            series.render(name, labels, text);
        }
    }
}

impl Series {
    fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }

    fn render(&self, name: &str, labels: &str, text: &mut String) {
        match self {
            Self::Counter(value) => {
                writeln!(text, "{name}{} {}", braced(labels), value.load(Ordering::Relaxed)).ok();
            }
            Self::Gauge(value) => {
                let value = f64::from_bits(value.load(Ordering::Relaxed));
                writeln!(text, "{name}{} {value}", braced(labels)).ok();
            }
            Self::Histogram(buckets) => buckets.render(name, labels, text),
        }
    }
}

impl Buckets {
    fn new(name: &str) -> Self {
        let bounds = if name.ends_with("_seconds") { SECONDS } else { BYTES };
        Self { bounds, state: Mutex::new((vec![0; bounds.len() + 1], 0.0)) }
    }

    fn render(&self, name: &str, labels: &str, text: &mut String) {
        let (counts, sum) = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let bounds = self.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        let separator = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        for (bound, count) in bounds.zip(counts) {
            total += count;
            writeln!(text, "{name}_bucket{{{labels}{separator}le=\"{bound}\"}} {total}").ok();
        }
        writeln!(text, "{name}_sum{0} {sum}\n{name}_count{0} {total}", braced(labels)).ok();
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.bounds.iter().take_while(|bound| value > **bound).count();
        if let Some(count) = state.0.get_mut(at) {
            *count += 1;
        }
        state.1 += value;
    }
}

impl Recorder for Registry {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, &help);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, &help);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, &help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.series(key, || Series::Counter(Arc::default())) {
            Series::Counter(value) => Counter::from_arc(value),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.series(key, || Series::Gauge(Arc::default())) {
            Series::Gauge(value) => Gauge::from_arc(value),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.series(key, || Series::Histogram(Arc::new(Buckets::new(key.name())))) {
            Series::Histogram(buckets) => Histogram::from_arc(buckets),
            _ => Histogram::noop(),
        }
    }
}

/// `a="x",b="y"`, by name.
fn labels(key: &Key) -> String {
    let mut labels: Vec<String> =
        key.labels().map(|label| format!("{}=\"{}\"", label.key(), escaped(label.value()))).collect();
    labels.sort();
    labels.join(",")
}

/// As Prometheus' text format wants the values of labels.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn braced(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

#[cfg(test)]
mod tests {
    use metrics::{counter, histogram, with_local_recorder};

    use super::*;

    #[test]
    fn families_are_shown_as_prometheus_reads_them() {
        let registry = Registry::default();
        with_local_recorder(&registry, || {
            describe_counter!("b_total", "What is b");
            counter!("b_total", "z" => "1", "a" => "x\"\\\n").increment(2);
            gauge!("a").set(1.5);
            histogram!("c_seconds").record(0.01);
            histogram!("c_seconds").record(60.0);
        });
        let text = registry.render();
        assert!(text.starts_with("# HELP a \n# TYPE a gauge\na 1.5\n# HELP b_total What is b\n"), "{text}");
        assert!(text.contains("b_total{a=\"x\\\"\\\\\\n\",z=\"1\"} 2\n"), "{text}");
        assert!(
            text.contains("c_seconds_bucket{le=\"0.005\"} 0\nc_seconds_bucket{le=\"0.01\"} 1\n"),
            "{text}"
        );
        assert!(
            text.ends_with("c_seconds_bucket{le=\"+Inf\"} 2\nc_seconds_sum 60.01\nc_seconds_count 2\n"),
            "{text}"
        );
    }
}
