//! Spans, as OTLP writes them in JSON: numbers of traces and spans in hexadecimal digits, numbers of 64 bits as texts.
//!
//! Names and values are those of OpenTelemetry's conventions for clients of databases; what is ours begins with `nearside.`.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::resource::Resource;
use crate::cache::Micros;
use crate::io::Address;
use crate::process::Trace;

/// The conventions by which the attributes are named.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.34.0";

/// The kinds of a span, and the status of one that failed, by number.
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
const ERROR: u8 = 2;

/// Sampled, and known to be no other process'.
const FLAGS: u32 = 0x101;

/// An `ExportTraceServiceRequest`.
pub(super) fn of(resource: &Resource, traces: &[Trace]) -> Vec<u8> {
    let attributes: Vec<_> = resource.0.iter().map(|(name, value)| text(name, value)).collect();
    let spans: Vec<_> = traces.iter().flat_map(|trace| [read(trace), asked(trace)]).collect();
    let body = json!({ "resourceSpans": [{
        "resource": { "attributes": attributes },
        "scopeSpans": [{
            "scope": { "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") },
            "spans": spans,
            "schemaUrl": SCHEMA,
        }],
        "schemaUrl": SCHEMA,
    }] });
    body.to_string().into_bytes()
}

/// The client's read, from when it was read until its reply was handed over.
fn read(trace: &Trace) -> Value {
    let mut attributes = command(trace);
    attributes.push(text("nearside.cache", "miss"));
    attributes.push(text("nearside.miss.reason", trace.why.name()));
    attributes.extend(trace.namespace.iter().map(|name| text("nearside.namespace", name)));
    // Kept, or why not.
    attributes.extend(trace.outcome.map(|outcome| text("nearside.fill", outcome.name())));
    if trace.keys > 1 {
        attributes.push(json!({ "key": "nearside.keys", "value": { "intValue": trace.keys.to_string() } }));
    }
    span(trace, (SERVER, trace.read, None), (trace.since, trace.end), attributes)
}

/// The request upstream.
fn asked(trace: &Trace) -> Value {
    let mut attributes = command(trace);
    match trace.upstream.as_deref() {
        Some(Address::Tcp { host, port }) => {
            attributes.push(text("server.address", host));
            attributes.push(json!({ "key": "server.port", "value": { "intValue": port.to_string() } }));
        }
        Some(Address::Unix(path)) => attributes.push(text("server.address", &path.to_string_lossy())),
        None => {}
    }
    if let Some(code) = trace.error.as_deref().filter(|_| !trace.is_unanswered()) {
        attributes.push(text("db.response.status_code", code));
    }
    span(trace, (CLIENT, trace.asked, Some(trace.read)), (trace.sent, trace.heard), attributes)
}

/// What both tell of the command.
fn command(trace: &Trace) -> Vec<Value> {
    let mut attributes = vec![text("db.system.name", "redis"), text("db.operation.name", &trace.command)];
    attributes.extend(trace.db.map(|db| text("db.namespace", &db.to_string())));
    attributes.extend(trace.error.as_deref().map(|error| text("error.type", error)));
    attributes
}

fn span(
    trace: &Trace,
    (kind, id, parent): (u8, u64, Option<u64>),
    (start, end): (Micros, Micros),
    attributes: Vec<Value>,
) -> Value {
    // By the steady clock between them, whatever the one on the wall does meanwhile.
    let at = |time: Micros| {
        let before = Duration::from_micros(trace.end.saturating_sub(time));
        let at = trace.ended_at.checked_sub(before).unwrap_or(SystemTime::UNIX_EPOCH);
        at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
    };
    let mut span = json!({
        "traceId": format!("{:032x}", trace.id),
        "spanId": format!("{id:016x}"),
        "flags": FLAGS,
        "name": &*trace.command,
        "kind": kind,
        "startTimeUnixNano": at(start),
        "endTimeUnixNano": at(end),
        "attributes": attributes,
    });
    if let Some(parent) = parent {
        span["parentSpanId"] = format!("{parent:016x}").into();
    }
    if trace.error.is_some() {
        span["status"] = json!({ "code": ERROR });
    }
    span
}

fn text(name: &str, value: &str) -> Value {
    json!({ "key": name, "value": { "stringValue": value } })
}
