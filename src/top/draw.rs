//! The screen: what [`App`] knows, in as much room as there is.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Gauge, Paragraph, Sparkline, Wrap};

use super::app::App;
use super::figures::{Figures, Latency, Reason, WriteBack};

/// Narrower than this, everything stands in one column.
const TWO_COLUMNS: u16 = 76;

/// Lines of the blocks with their borders.
const TRAFFIC: u16 = 9;
const TIMES: u16 = 6;
const MEMORY: u16 = 4;
const UPSTREAM: u16 = 7;

/// Nodes that are shown.
const NODES: usize = 12;

pub fn draw(frame: &mut Frame<'_>, app: &App) {
    let heights = [Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)];
    let [title, body, foot] = Layout::vertical(heights).areas(frame.area());
    frame.render_widget(headline(app), title);
    frame.render_widget(Line::from(" q quits").style(Style::new().add_modifier(Modifier::DIM)), foot);
    match &app.figures {
        Some(figures) => figures_in(frame, body, app, figures),
        None => {
            let text = match app.lost() {
                Some((why, _)) => format!("{}\n\n{why}\n\nIt is tried again every second.", app.address),
                None => format!("{}\n\nwaiting for its figures", app.address),
            };
            frame.render_widget(Paragraph::new(text).centered().wrap(Wrap { trim: true }), body);
        }
    }
}

/// Whom it watches, and how that one is.
fn headline(app: &App) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut line = Line::from(Span::styled(format!(" nearside {} ", app.address), bold));
    let (state, colour) = match (app.lost(), &app.figures) {
        (Some((why, since)), _) => (format!("no answer for {}s: {why}", since.as_secs()), Color::Red),
        (None, None) => ("connecting".to_owned(), Color::Yellow),
        (None, Some(Figures { unready: Some(why), .. })) => (format!("not ready: {why}"), Color::Yellow),
        (None, Some(Figures { unready: None, .. })) => ("ready".to_owned(), Color::Green),
    };
    line.push_span(Span::styled(state, Style::new().fg(colour)));
    if let Some(version) = app.figures.as_ref().and_then(|figures| figures.version.as_ref()) {
        line.push_span(format!("  version {version}"));
    }
    line
}

fn figures_in(frame: &mut Frame<'_>, area: Rect, app: &App, figures: &Figures) {
    let lines = |height| Constraint::Length(height);
    let (left, right) = match area.width >= TWO_COLUMNS {
        true => {
            let [left, right] = Layout::horizontal([Constraint::Percentage(50); 2]).areas(area);
            (left, right)
        }
        false => {
            let of_right = UPSTREAM + 8;
            let [left, right] = Layout::vertical([Constraint::Min(0), lines(of_right)]).areas(area);
            (left, right)
        }
    };
    let [traffic_in, times_in, memory_in] =
        Layout::vertical([Constraint::Min(TRAFFIC), lines(TIMES), lines(MEMORY)]).areas(left);
    let of_upstream =
        UPSTREAM + u16::from(figures.write_back.is_some()) + figures.of_nodes.len().min(NODES) as u16;
    let [upstream_in, reasons_in] = Layout::vertical([lines(of_upstream), Constraint::Min(0)]).areas(right);
    traffic(frame, traffic_in, app, figures);
    frame.render_widget(times(figures).block(Block::bordered().title(" Times ")), times_in);
    memory(frame, memory_in, figures);
    frame.render_widget(upstream(figures).block(Block::bordered().title(" Upstream ")), upstream_in);
    frame.render_widget(
        reasons(figures).block(Block::bordered().title(" Reasons, per second and in all ")),
        reasons_in,
    );
}

fn traffic(frame: &mut Frame<'_>, area: Rect, app: &App, figures: &Figures) {
    let block = Block::bordered().title(" Traffic ");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [text_in, line_in] = Layout::vertical([Constraint::Length(5), Constraint::Min(0)]).areas(inner);
    let ratio = match (figures.hit_ratio, figures.hit_ratio_ever) {
        (now, Some(ever)) => format!("{} ({} since the start)", percent(now), percent(Some(ever))),
        (now, None) => percent(now),
    };
    let hits = format!("{} hits/s, {} misses/s", count(figures.hits), count(figures.misses));
    let text = Paragraph::new(vec![
        row("clients", &figures.clients.map_or_else(unknown, count)),
        row("requests/s", &count(figures.requests)),
        row("hit ratio", &ratio),
        row("reads", &hits),
        row("stale hits/s", &count(figures.stale_hits)),
    ]);
    frame.render_widget(text, text_in);
    let newest: Vec<u64> = app.requests.iter().rev().take(line_in.width.into()).rev().copied().collect();
    frame.render_widget(Sparkline::default().data(newest).style(Style::new().fg(Color::Cyan)), line_in);
}

fn times(figures: &Figures) -> Paragraph<'static> {
    let latency = |latency: Latency| format!("p50 {:>8}   p99 {:>8}", time(latency.p50), time(latency.p99));
    let (proven, style) = match figures.staleness {
        Some(proven) if proven.is_finite() => (format!("proven {} ago", time(Some(proven))), Style::new()),
        Some(_) => ("not proven: the feed is down".to_owned(), Style::new().fg(Color::Red)),
        None => (unknown(), Style::new()),
    };
    Paragraph::new(vec![
        row("hits", &latency(figures.hit)),
        row("upstream", &latency(figures.upstream)),
        Line::default(),
        row("freshness", &proven).style(style),
    ])
}

fn memory(frame: &mut Frame<'_>, area: Rect, figures: &Figures) {
    let block = Block::bordered().title(" Memory ");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [gauge_in, text_in] = Layout::vertical([Constraint::Length(1); 2]).areas(inner);
    let (bytes, limit) = (figures.bytes.unwrap_or(0.0), figures.limit.unwrap_or(0.0));
    let full = if limit > 0.0 { (bytes / limit).clamp(0.0, 1.0) } else { 0.0 };
    let label = format!("{} of {}", size(bytes), size(limit));
    let gauge = Gauge::default().ratio(full).label(label).gauge_style(Style::new().fg(Color::Blue));
    frame.render_widget(gauge, gauge_in);
    frame.render_widget(row("entries", &figures.entries.map_or_else(unknown, count)), text_in);
}

fn upstream(figures: &Figures) -> Paragraph<'static> {
    let (nodes, feeds) = (figures.nodes.unwrap_or(0.0), figures.feeds.unwrap_or(0.0));
    let down = feeds < nodes.max(1.0);
    let feed = format!("{} of {} nodes", count(feeds), count(nodes));
    let feed = row("feed", &feed).style(if down { Style::new().fg(Color::Red) } else { Style::new() });
    let mut lines = vec![
        feed,
        row("told by", figures.form.as_deref().unwrap_or("?")),
        row("links", &figures.links.map_or_else(unknown, count)),
        row("requests/s", &count(figures.upstream_requests)),
        row("errors/s", &count(figures.upstream_errors)),
    ];
    lines.extend(figures.write_back.map(unflushed));
    lines.extend(figures.of_nodes.iter().take(NODES).map(|(node, took)| {
        Line::from(format!(" {node:<21} p50 {}, p99 {}", time(took.p50), time(took.p99)))
    }));
    Paragraph::new(lines)
}

fn unflushed(of: WriteBack) -> Line<'static> {
    let oldest = if of.dirty > 0.0 { format!(" for {}", time(Some(of.oldest))) } else { String::new() };
    let conflicts =
        if of.conflicts > 0.0 { format!(", {} conflicts", count(of.conflicts)) } else { String::new() };
    let line = row("not flushed", &format!("{} keys{oldest}{conflicts}", count(of.dirty)));
    match of.is_open {
        true => line,
        false => line.style(Style::new().fg(Color::Red)),
    }
}

fn reasons(figures: &Figures) -> Paragraph<'static> {
    let mut lines = Vec::new();
    for (what, reasons) in [("past the cache", &figures.bypasses), ("dropped", &figures.dropped)] {
        lines.push(Line::from(what).style(Style::new().add_modifier(Modifier::BOLD)));
        if reasons.is_empty() {
            lines.push(Line::from("  none"));
        }
        lines.extend(reasons.iter().map(|Reason { name, rate, total }| {
            Line::from(format!("  {name:<16} {:>8} {:>10}", count(*rate), count(*total)))
        }));
    }
    Paragraph::new(lines)
}

fn row(name: &str, value: &str) -> Line<'static> {
    Line::from(format!(" {name:<13} {value}"))
}

fn unknown() -> String {
    "?".to_owned()
}

fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "no reads".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0))
}

/// With a thousands separator; small numbers with a decimal place, if they are not whole.
fn count(value: f64) -> String {
    if value < 10.0 && value.fract() != 0.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut shown = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds < 0.001 => format!("{:.0} µs", seconds * 1e6),
        Some(seconds) if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}

fn size(bytes: f64) -> String {
    const KB: f64 = 1024.0;
    match bytes {
        bytes if bytes < KB => format!("{bytes:.0} B"),
        bytes if bytes < KB * KB => format!("{:.1} kB", bytes / KB),
        bytes if bytes < KB * KB * KB => format!("{:.1} MB", bytes / KB / KB),
        bytes => format!("{:.1} GB", bytes / KB / KB / KB),
    }
}
