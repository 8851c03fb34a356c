//! A page of metrics in Prometheus' text format 0.0.4, read.
//!
//! See <https://prometheus.io/docs/instrumenting/exposition_formats/>. Lines that are no samples are left out.

use std::collections::HashMap;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Samples(HashMap<String, Vec<Sample>>);

#[derive(Debug)]
struct Sample {
    labels: Vec<(String, String)>,
    value: f64,
}

impl Sample {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

impl Samples {
    pub fn parse(text: &str) -> Self {
        let mut samples: HashMap<String, Vec<Sample>> = HashMap::new();
        for (name, sample) in text.lines().filter(|line| !line.starts_with('#')).filter_map(parsed) {
            samples.entry(name.to_owned()).or_default().push(sample);
        }
        Self(samples)
    }

    /// Whether it is a nearside that tells.
    pub fn is_nearside(&self) -> bool {
        self.0.contains_key("nearside_hits_total")
    }

    fn of(&self, name: &str) -> &[Sample] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The sum of all samples of this name.
    pub fn sum(&self, name: &str) -> Option<f64> {
        let samples = self.of(name);
        (!samples.is_empty()).then(|| samples.iter().map(|sample| sample.value).sum())
    }

    /// By the values of a label, summed over the others, in the order of the page.
    pub fn by(&self, name: &str, label: &str) -> Vec<(&str, f64)> {
        let mut all: Vec<(&str, f64)> = Vec::new();
        for sample in self.of(name) {
            let Some(is) = sample.label(label) else { continue };
            match all.iter_mut().find(|(known, _)| *known == is) {
                Some((_, value)) => *value += sample.value,
                None => all.push((is, sample.value)),
            }
        }
        all
    }

    /// What a label says, where the metric is there for its labels.
    pub fn label(&self, name: &str, label: &str) -> Option<&str> {
        self.of(name).first()?.label(label)
    }

    /// The buckets of a histogram whose label is this: upper bounds, and how many are at or below.
    pub fn buckets(&self, name: &str, label: &str, is: &str) -> Vec<(f64, f64)> {
        let ours = self.of(name).iter().filter(|sample| sample.label(label) == Some(is));
        ours.filter_map(|sample| Some((sample.label("le")?.parse().ok()?, sample.value))).collect()
    }
}

/// `name{label="value",…} value [time]`.
fn parsed(line: &str) -> Option<(&str, Sample)> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    (!name.is_empty()).then_some((name, Sample { labels, value }))
}

/// The labels up to the closing brace, and what stands behind it.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, behind) = rest.split_once("=\"")?;
        let (value, behind) = quoted(behind)?;
        labels.push((name.to_owned(), value));
        rest = behind;
    }
}

/// The text up to the closing quotation mark, without its escapes.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut characters) = (String::new(), text.char_indices());
    while let Some((i, c)) = characters.next() {
        match c {
            '"' => return Some((value, &text[i + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push(' '),
                other => value.push(other),
            },
            c if c.is_control() => {}
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_it_is_written() {
        let samples = Samples::parse(
            "# HELP nearside_hits_total Reads.\n# TYPE nearside_hits_total counter\nnearside_hits_total 3\n\
             drops{reason=\"a\",by=\"x\"} 1\ndrops{reason=\"b, \\\"}\\\\\",by=\"x\"} 2.5\ndrops{reason=\"a\",by=\"y\"} 4 1395066363000\n\
             fresh +Inf\nbroken{a=\"b} 1\nno value\n\n{} 3\nd_bucket{path=\"hit\",le=\"0.1\"} 2\nd_bucket{path=\"hit\",le=\"+Inf\"} 3\n\
             d_bucket{path=\"up\",le=\"+Inf\"} 9\n",
        );
        assert!(samples.is_nearside() && !Samples::parse("up 1\n").is_nearside());
        assert_eq!((samples.sum("nearside_hits_total"), samples.sum("nowhere")), (Some(3.0), None));
        assert_eq!(samples.by("drops", "reason"), [("a", 5.0), ("b, \"}\\", 2.5)]);
        assert_eq!(samples.label("drops", "by"), Some("x"));
        assert_eq!(samples.sum("fresh"), Some(f64::INFINITY));
        assert_eq!(samples.buckets("d_bucket", "path", "hit"), [(0.1, 2.0), (f64::INFINITY, 3.0)]);
        assert_eq!((samples.sum("broken"), samples.sum("no")), (None, None));
    }
}
