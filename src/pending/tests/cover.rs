//! Under what a reply that is read on a link would be kept.

use super::*;
use crate::namespace::Tracking;
use crate::process::Reports;

#[test]
fn what_was_read_is_covered_as_its_namespace_wants_it() {
    let namespaces = [("keys", Tracking::Keys), ("prefix", Tracking::Prefix), ("off", Tracking::Off)];
    let namespaces = namespaces.map(|(name, tracking)| fixture::namespace(name, tracking)).into();
    let process = fixture::process_of(fixture::nowhere(), namespaces, |_| ());
    let (link, _above) = link(&process);
    let coverages = process.cache.coverages();
    let feed = coverages.arm(&link.node.feed, None, 1).unwrap();
    let channels = coverages.arm_untold(&link.node.announced, feed).unwrap();
    let covers = |key: &str| {
        let cover = link.cover(key.as_bytes(), process.namespaces.find(key.as_bytes()));
        assert!(cover.is_none_or(|cover| cover.link == link.id && !cover.registers));
        cover.map(|cover| cover.coverage)
    };
    let all = || ["keys/a", "prefix/a", "off/a", "of none"].map(covers);
    assert_eq!(all(), [None, Some(channels), Some(channels), None], "it is not tracked yet");
    link.node.reports.set(Reports::Prefixes);
    link.may_lead_to(feed);
    link.refuse("-NOPERM");
    assert_eq!(all(), [Some(channels), Some(feed), Some(channels), None], "it will not be");
    let tracked = coverages.arm(link.coverage.borrow().as_ref().unwrap(), Some(feed), 1);
    assert_eq!(all(), [tracked, Some(feed), Some(channels), None]);
    link.arming.unsure.set(true);
    assert_eq!(all(), [None; 4], "where it leads is not known");
    link.arming.unsure.set(false);
    fixture::leave(&link.node);
    assert_eq!(all(), [None; 4], "its server was left");
}

/// Where links are not tracked, by what the feed is told; and by nothing of a server that may be another's.
#[test]
fn what_the_feed_is_told_of_covers_what_is_read_from_its_server() {
    let namespaces = vec![fixture::namespace("prefix", Tracking::Prefix)];
    let process = fixture::process_of(fixture::nowhere(), namespaces, |settings| {
        settings.tracking = Tracking::Keys;
    });
    let (link, _above) = link(&process);
    let coverages = process.cache.coverages();
    let feed = coverages.arm(&link.node.feed, None, 1).unwrap();
    let all = || {
        let cover = |key: &str| link.cover(key.as_bytes(), process.namespaces.find(key.as_bytes()));
        ["prefix/a", "a"].map(|key| cover(key).map(|cover| (cover.coverage == feed, cover.registers)))
    };
    link.refuse("-NOPERM");
    for (reports, covers) in [
        (Reports::Nothing, [None, None]),
        (Reports::Registered, [Some((true, true)); 2]),
        (Reports::Prefixes, [Some((true, false)), None]),
        (Reports::All, [Some((true, false)); 2]),
    ] {
        link.node.reports.set(reports);
        link.lead_to(None);
        assert_eq!(all(), [None; 2], "{reports:?}: where it leads is not known");
        link.may_lead_to(feed);
        assert_eq!(all(), covers, "{reports:?}");
    }
    link.node.reports.set(Reports::Registered);
    link.node.registrar.refuse([&b"a"[..]].into_iter());
    assert_eq!(all(), [Some((true, true)), None], "nearside may not ask for it");
    link.node.registrar.forget_refusals();
    assert_eq!(all(), [Some((true, true)); 2]);
    assert!(link.is_at_feed());
    coverages.flush();
    assert!(link.is_at_feed(), "a flush changes no server");
    coverages.end(&link.node.feed, 2);
    assert!(!link.is_at_feed() && all() == [None; 2]);
    coverages.arm(&link.node.feed, None, 3).unwrap();
    assert!(!link.is_at_feed() && all() == [None; 2], "the feed may be on another server now");
}
