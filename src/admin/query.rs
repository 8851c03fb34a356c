//! What stands behind the `?` of an address.

use percent_encoding::percent_decode_str;

/// What a query gives for this name, any bytes, decoded as browsers encode forms.
pub(super) fn parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(percent_decode_str(&value.replace('+', " ")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_found_by_its_whole_name_and_holds_any_bytes() {
        let query = "akey=1&key=a%2Fb+c%00%ff&key=2&empty=";
        assert_eq!(parameter(query, "key").as_deref(), Some(&b"a/b c\0\xff"[..]));
        assert_eq!(parameter(query, "empty").as_deref(), Some(&b""[..]));
        assert_eq!(
            (parameter(query, "ke"), parameter("key", "key"), parameter("", "key")),
            (None, None, None)
        );
    }
}
