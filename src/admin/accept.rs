//! Which of the two formats of the metrics is asked for (`Accept`).
//!
//! Who does not ask for OpenMetrics by name is told in the older format, as by other exporters; who names both gets what it
//! gives more weight, and OpenMetrics at the same weight.

use hyper::HeaderMap;
use hyper::header::ACCEPT;

const OPEN_METRICS: &str = "application/openmetrics-text";

/// The versions of OpenMetrics that are told; without one, any.
const VERSIONS: [&str; 2] = ["1.0.0", "0.0.1"];

/// Whether OpenMetrics is to be told.
pub(super) fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<Range> = values.flat_map(|value| value.split(',')).filter_map(Range::of).collect();
    let open = ranges.iter().filter(|range| range.is_open_metrics()).map(|range| range.weight).max();
    let text = ranges.iter().filter(|range| range.is_text()).map(|range| range.weight).max();
    open.is_some_and(|open| open > 0 && text.is_none_or(|text| open >= text))
}

/// One of the kinds that are accepted.
struct Range<'a> {
    kind: &'a str,
    version: Option<&'a str>,
    /// Of a thousand.
    weight: u16,
}

impl<'a> Range<'a> {
    /// `None` if nothing stands there.
    fn of(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().filter(|kind| !kind.is_empty())?;
        let mut range = Range { kind, version: None, weight: 1000 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim() {
                name if name.eq_ignore_ascii_case("q") => range.weight = weight(value),
                name if name.eq_ignore_ascii_case("version") => range.version = Some(value),
                _ => {}
            }
        }
        Some(range)
    }

    fn is_open_metrics(&self) -> bool {
        self.kind.eq_ignore_ascii_case(OPEN_METRICS)
            && self.version.is_none_or(|version| VERSIONS.contains(&version))
    }

    fn is_text(&self) -> bool {
        self.kind.eq_ignore_ascii_case("text/plain") && self.version.is_none_or(|version| version == "0.0.4")
    }
}

/// What is no weight is none at all.
fn weight(text: &str) -> u16 {
    let weight: f32 = text.parse().unwrap_or(0.0);
    (weight.clamp(0.0, 1.0) * 1000.0) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(accept: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, value.parse().unwrap());
        }
        wants_open_metrics(&headers)
    }

    #[test]
    fn who_does_not_ask_for_it_is_told_in_the_older_format() {
        for accept in
            [&[][..], &["*/*"], &["text/plain"], &["text/html,application/xml;q=0.9,*/*;q=0.8"], &[""]]
        {
            assert!(!wants(accept), "{accept:?}");
        }
    }

    #[test]
    fn prometheus_gets_what_it_prefers() {
        // 2.42, and 2.49 with its settings as they are.
        assert!(wants(&[
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ]));
        assert!(wants(&[
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        ]));
        // 3, with PrometheusText0.0.4 in front.
        assert!(!wants(&["text/plain;version=0.0.4;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.2"]));
        assert!(wants(&["application/openmetrics-text; version=\"1.0.0\"; charset=utf-8"]));
    }

    #[test]
    fn weights_and_versions_count() {
        assert!(!wants(&["application/openmetrics-text;q=0"]));
        assert!(!wants(&["application/openmetrics-text;version=9.0.0, text/plain;q=0.1"]));
        assert!(!wants(&["application/openmetrics-text;q=nonsense"]));
        assert!(wants(&["text/plain", "Application/OpenMetrics-Text"]), "the same weight, in two lines");
        assert!(wants(&["text/plain;version=1.0.0, application/openmetrics-text;q=0.1"]));
    }
}
