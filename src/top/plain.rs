//! `nearside top --once`: one page for scripts, in the manner of `INFO`: a line for each figure, `name:value`.
//!
//! Rates are those of the second between two looks; what was not measured is `-`.

use std::fmt::Write as _;

use super::figures::{Figures, Reason};
use super::source::{EVERY, Source};
use crate::config::Top;

/// Looks twice, and says what that tells. Errors: why the sidecar says nothing.
pub fn once(top: &Top) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let mut source = Source::new(top);
    let figures = runtime.block_on(async {
        let first = source.look().await?;
        tokio::time::sleep(EVERY).await;
        Ok::<_, String>(Figures::between(&first, &source.look().await?))
    });
    figures.map(|figures| page(&figures)).map_err(|why| format!("{}: {why}", top.at))
}

fn page(figures: &Figures) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: Option<String>| {
        let _infallible = writeln!(out, "{name}:{}", value.unwrap_or_else(|| "-".to_owned()));
    };
    let rate = |rate: f64| Some(format!("{rate:.1}"));
    let whole = |value: Option<f64>| value.map(|value| format!("{value:.0}"));
    let ratio = |value: Option<f64>| value.map(|value| format!("{value:.4}"));
    let micros = |value: Option<f64>| value.map(|value| format!("{:.0}", value * 1e6));
    line("state", Some(figures.unready.clone().unwrap_or_else(|| "ready".to_owned())));
    line("version", figures.version.clone());
    line("clients", whole(figures.clients));
    line("requests_per_second", rate(figures.requests));
    line("hits_per_second", rate(figures.hits));
    line("misses_per_second", rate(figures.misses));
    line("stale_hits_per_second", rate(figures.stale_hits));
    line("hit_ratio", ratio(figures.hit_ratio));
    line("hit_ratio_since_start", ratio(figures.hit_ratio_ever));
    line("hit_p50_us", micros(figures.hit.p50));
    line("hit_p99_us", micros(figures.hit.p99));
    line("upstream_p50_us", micros(figures.upstream.p50));
    line("upstream_p99_us", micros(figures.upstream.p99));
    line("proven_staleness_us", micros(figures.staleness.filter(|staleness| staleness.is_finite())));
    line("bytes", whole(figures.bytes));
    line("max_bytes", whole(figures.limit));
    line("entries", whole(figures.entries));
    line("nodes", whole(figures.nodes));
    line("feeds_up", whole(figures.feeds));
    line("upstream_links", whole(figures.links));
    line("tracking_form", figures.form.clone());
    line("upstream_requests_per_second", rate(figures.upstream_requests));
    line("upstream_errors_per_second", rate(figures.upstream_errors));
    if let Some(of) = figures.write_back {
        line("dirty_keys", whole(Some(of.dirty)));
        line("dirty_oldest_us", micros(Some(of.oldest)));
        line("conflict_log_entries", whole(Some(of.conflicts)));
    }
    for (node, latency) in &figures.of_nodes {
        line(&format!("node_p50_us_{node}"), micros(latency.p50));
        line(&format!("node_p99_us_{node}"), micros(latency.p99));
    }
    for (what, reasons) in [("bypasses", &figures.bypasses), ("dropped", &figures.dropped)] {
        for Reason { name, total, .. } in reasons {
            line(&format!("{what}_{name}"), Some(format!("{total:.0}")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_said_so() {
        let reason = Reason { name: "evicted".into(), rate: 1.0, total: 12.0 };
        let figures = Figures {
            hit_ratio: Some(0.75),
            staleness: Some(f64::INFINITY),
            dropped: vec![reason],
            ..Figures::default()
        };
        let page = page(&figures);
        for line in
            ["state:ready", "hit_ratio:0.7500", "proven_staleness_us:-", "bytes:-", "dropped_evicted:12"]
        {
            assert!(page.lines().any(|said| said == line), "{line} in {page}");
        }
    }
}
