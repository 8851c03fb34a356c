//! The screen as a terminal would show it.

use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::app::App;
use super::draw::draw;
use super::samples::Samples;
use super::source::Seen;

fn page(hits: u32) -> String {
    format!(
        "nearside_build_info{{version=\"0.2.0\"}} 1\nnearside_hits_total {hits}\nnearside_misses_total 100\n\
         nearside_requests_total {hits}\nnearside_clients 3\nnearside_stale_hits_total 0\n\
         nearside_request_duration_seconds_bucket{{le=\"0.00001\",path=\"hit\"}} {hits}\n\
         nearside_request_duration_seconds_bucket{{le=\"+Inf\",path=\"hit\"}} {hits}\n\
         nearside_upstream_duration_seconds_bucket{{le=\"0.001\",node=\"10.0.0.7:6379\"}} {hits}\n\
         nearside_cache_bytes 1048576\nnearside_cache_limit_bytes 67108864\nnearside_entries 12345\n\
         nearside_proven_staleness_seconds 0.25\nnearside_nodes 1\nnearside_feed_up 1\nnearside_upstream_links 4\n\
         nearside_tracking_form{{form=\"redirect\"}} 1\nnearside_bypasses_total{{reason=\"barrier\"}} 7\n\
         nearside_dropped_entries_total{{reason=\"evicted\"}} 4000\n"
    )
}

/// After two looks, a second apart, of which the second is this.
fn watched(second: &str, unready: Option<&str>) -> App {
    let (mut app, start) = (App::new("127.0.0.1:9380".to_owned()), Instant::now());
    for (second, text, unready) in [(0, &*page(1000), None), (1, second, unready)] {
        let at = start + Duration::from_secs(second);
        app.hear(Ok(Seen { at, samples: Samples::parse(text), unready: unready.map(str::to_owned) }));
    }
    app
}

/// The screen's lines, in a terminal of this size.
fn screen(app: &App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app)).unwrap();
    terminal.backend().to_string()
}

#[track_caller]
fn shows(screen: &str, texts: &[&str]) {
    for text in texts {
        assert!(screen.contains(text), "{text:?} is not shown:\n{screen}");
    }
}

#[test]
fn everything_stands_on_a_common_terminal() {
    let screen = screen(&watched(&page(2900), None), 100, 30);
    shows(
        &screen,
        &[
            "nearside 127.0.0.1:9380 ready  version 0.2.0",
            "requests/s    1,900",
            "hit ratio     100.0 % (96.7 % since the start)",
            "p50     5 µs",
            "freshness     proven 250.0 ms ago",
            "1.0 MB of 64.0 MB",
            "entries       12,345",
            "feed          1 of 1 nodes",
            "told by       redirect",
            "10.0.0.7:6379         p50 500 µs, p99 990 µs",
            "barrier",
            "evicted",
            "q quits",
        ],
    );
}

#[test]
fn a_narrow_one_has_one_column_and_a_tiny_one_is_no_fault() {
    let app = watched(&page(2900), None);
    shows(&screen(&app, 50, 40), &["requests/s    1,900", "feed          1 of 1 nodes"]);
    for (width, height) in [(1, 1), (10, 3), (40, 8), (76, 5), (300, 100)] {
        screen(&app, width, height);
        screen(&App::new("x".to_owned()), width, height);
    }
}

#[test]
fn what_is_wrong_is_said() {
    let unready = watched(&page(2900), Some("the upstream is not reachable: refused"));
    shows(&screen(&unready, 100, 30), &["not ready: the upstream is not reachable: refused"]);
    let without_feed = page(2900)
        .replace("nearside_feed_up 1", "nearside_feed_up 0")
        .replace("seconds 0.25", "seconds +Inf");
    shows(
        &screen(&watched(&without_feed, None), 100, 30),
        &["not proven: the feed is down", "feed          0 of 1 nodes"],
    );
}

#[test]
fn what_is_not_flushed_is_told_where_writes_are_acknowledged_here() {
    assert!(!screen(&watched(&page(2900), None), 100, 30).contains("not flushed"));
    let of = |open, dirty, conflicts| {
        let more = |namespace, open, dirty, oldest, conflicts| {
            format!(
                "nearside_writeback_open{{namespace=\"{namespace}\"}} {open}\n\
                 nearside_writeback_dirty_keys{{namespace=\"{namespace}\"}} {dirty}\n\
                 nearside_writeback_oldest_seconds{{namespace=\"{namespace}\"}} {oldest}\n\
                 nearside_writeback_conflict_log_entries{{namespace=\"{namespace}\"}} {conflicts}\n"
            )
        };
        screen(
            &watched(
                &(page(2900) + &more("a", 1, dirty, 0.25, 0) + &more("b", open, dirty, 3.0, conflicts)),
                None,
            ),
            100,
            30,
        )
    };
    shows(&of(1, 0, 0), &["not flushed   0 keys "]);
    shows(&of(0, 1200, 4), &["not flushed   2,400 keys for 3.0 s, 4 conflicts"]);
}

#[test]
fn a_sidecar_that_is_lost_is_told_of_until_it_is_there_again() {
    let mut app = App::new("127.0.0.1:9380".to_owned());
    shows(&screen(&app, 100, 30), &["connecting", "waiting for its figures"]);
    app.hear(Err("Connection refused".to_owned()));
    shows(&screen(&app, 100, 30), &["no answer for 0s: Connection refused", "tried again every second"]);
    let mut app = watched(&page(2900), None);
    app.hear(Err("no answer within 3s".to_owned()));
    let lost = screen(&app, 100, 30);
    shows(&lost, &["no answer for 0s: no answer within 3s", "requests/s    1,900"]);
    // The first look after that is compared with none before.
    let later = Instant::now();
    let seen = |text: &str, after| Seen {
        at: later + Duration::from_secs(after),
        samples: Samples::parse(text),
        unready: None,
    };
    app.hear(Ok(seen(&page(5000), 60)));
    shows(&screen(&app, 100, 30), &["9380 ready", "requests/s    1,900"]);
    app.hear(Ok(seen(&page(5010), 61)));
    shows(&screen(&app, 100, 30), &["requests/s    10"]);
}
