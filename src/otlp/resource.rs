//! What tells of spans: this process, as OpenTelemetry describes one, and as its own variables say.

use std::hash::{BuildHasher, RandomState};

use percent_encoding::percent_decode_str;

/// By name, each once.
#[derive(Debug)]
pub(super) struct Resource(pub(super) Vec<(String, String)>);

impl Resource {
    /// `OTEL_RESOURCE_ATTRIBUTES` adds to what is told, or replaces it, and `OTEL_SERVICE_NAME` replaces the name.
    pub(super) fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let mut all = Self(Vec::new());
        all.set("service.name", env!("CARGO_PKG_NAME"));
        all.set("service.version", env!("CARGO_PKG_VERSION"));
        all.set("service.instance.id", &uuid());
        let given = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        for (name, value) in given.split(',').filter_map(|pair| pair.split_once('=')) {
            if let (false, Ok(value)) =
                (name.trim().is_empty(), percent_decode_str(value.trim()).decode_utf8())
            {
                all.set(name.trim(), &value);
            }
        }
        if let Some(name) = variable("OTEL_SERVICE_NAME").filter(|name| !name.is_empty()) {
            all.set("service.name", &name);
        }
        all
    }

    fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value.to_owned(),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }
}

/// A number of this process alone, in the form of a random UUID (RFC 9562, version 4).
fn uuid() -> String {
    let random = RandomState::new();
    let (high, low) = (random.hash_one(0), random.hash_one(1));
    let (version, variant) = (4 << 12 | high & 0xfff, 0b10 << 14 | low >> 48 & 0x3fff);
    format!(
        "{:08x}-{:04x}-{version:04x}-{variant:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Resource {
        Resource::of_environment(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn get<'r>(resource: &'r Resource, name: &str) -> &'r str {
        &resource.0.iter().find(|(known, _)| known == name).expect(name).1
    }

    #[test]
    fn what_the_variables_say_comes_first() {
        let plain = of(&[]);
        assert_eq!(get(&plain, "service.name"), "nearside");
        assert_eq!(get(&plain, "service.version"), env!("CARGO_PKG_VERSION"));
        let attributes =
            ("OTEL_RESOURCE_ATTRIBUTES", " a.b = x%2Cy ,service.name=one,service.instance.id=7,bad,=q");
        let given = of(&[attributes]);
        assert_eq!((get(&given, "a.b"), get(&given, "service.name")), ("x,y", "one"));
        assert_eq!((get(&given, "service.instance.id"), given.0.len()), ("7", 4));
        assert_eq!(get(&of(&[attributes, ("OTEL_SERVICE_NAME", "two")]), "service.name"), "two");
    }

    #[test]
    fn each_process_has_a_number_of_its_own() {
        let (one, other) = (uuid(), uuid());
        assert_ne!(one, other);
        let parts: Vec<_> = one.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{one}");
        assert!(one.as_bytes()[14] == b'4' && b"89ab".contains(&one.as_bytes()[19]), "{one}");
    }
}
