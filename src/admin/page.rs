//! The page for people, at `/`: its files, as they are in the program.
//!
//! Invariants: what the page shows it asks for itself, at the address it came from, and nowhere else. A browser is told so
//! ([`POLICY`]): it runs no script and applies no style but those of these files, whatever a key or an event is called.

use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};
use hyper::{Response, StatusCode};

use super::answer::{Body, page_of, text};

/// Nothing from elsewhere, nothing inline, in no other page's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, kind, content.
const FILES: [(&str, &str, &str); 6] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page.js", SCRIPT, include_str!("page/page.js")),
    ("/charts.js", SCRIPT, include_str!("page/charts.js")),
    ("/figures.js", SCRIPT, include_str!("page/figures.js")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

/// One of the page's files.
pub(super) fn file(path: &str) -> Response<Body> {
    let Some((_, kind, content)) = FILES.iter().find(|(name, ..)| *name == path) else {
        return text(StatusCode::NOT_FOUND, "the page has no such file\n");
    };
    let mut response = page_of(StatusCode::OK, kind, *content);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the policy would refuse, and what would be asked of somebody else.
    #[test]
    fn the_files_hold_nothing_inline_and_lead_nowhere_else() {
        for (path, _, content) in FILES {
            for inline in [
                "<style",
                " style=",
                " onclick=",
                " onload=",
                "javascript:",
                "innerHTML",
                "insertAdjacent",
                "eval(",
            ] {
                assert!(!content.contains(inline), "{path} has {inline}");
            }
            let elsewhere = content.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("http:") && !elsewhere.contains("https:"), "{path} leads elsewhere");
        }
    }

    /// What is asked for by one of the files is there.
    #[test]
    fn what_the_files_name_is_there() {
        let mut named = 0;
        for (path, _, content) in FILES {
            let quoted = content.split('"').map(|word| word.trim_start_matches("./"));
            for name in quoted.filter(|word| [".css", ".js", ".svg"].iter().any(|end| word.ends_with(end))) {
                assert!(FILES.iter().any(|(file, ..)| file[1..] == *name), "{path} names {name}");
                named += 1;
            }
        }
        assert!(named >= 6, "the files were not understood: {named} names");
    }
}
