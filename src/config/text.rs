//! Texts as they are written in the file, and slips in them.

/// The text as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// `; did you mean …?` if one of `known` is near, otherwise nothing.
pub(super) fn did_you_mean<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let lower = text.to_lowercase().replace('_', "-");
    let near = known.into_iter().map(|name| (strsim::jaro_winkler(&lower, name), name));
    match near.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((score, name)) if score >= 0.75 => format!("; did you mean {name}?"),
        _ => String::new(),
    }
}
