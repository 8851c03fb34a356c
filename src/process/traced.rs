//! A sampled miss under way.
//!
//! Invariants: however it ends (a reply, an error, a lost link, a fault), it is told once, when whoever waits for the reply has
//! it: `Drop` tells it.

use std::sync::Arc;
use std::time::SystemTime;

use super::node::Node;
use super::shared::Process;
use super::traces::Trace;
use crate::cache::{By, EntryKey, Micros, Reason};
use crate::metrics::Exemplar;

/// As much of an upstream's error is told.
const LONGEST_WORD: usize = 32;

/// See the [module](self).
pub struct Traced {
    process: Arc<Process>,
    /// There until it is told.
    trace: Option<Trace>,
}

impl Traced {
    /// Begins one, if this miss is to be sampled, which was read at `since`: of `name`, or of so many keys of which that is the
    /// first. It is about to be sent to `node`.
    #[cold]
    pub fn begin(
        process: &Arc<Process>,
        node: &Node,
        since: Micros,
        name: &EntryKey<'_>,
        keys: usize,
    ) -> Option<Box<Self>> {
        let (id, [read, asked]) = process.traces.draw()?;
        let row = process.table().row(name.command).map(|row| row.name.to_ascii_uppercase());
        let sent = process.now();
        let trace = Trace {
            id,
            read,
            asked,
            command: if name.by == By::MGET { "MGET".into() } else { row.unwrap_or_default().into() },
            db: process.idents.get(name.ident).map(|ident| ident.db),
            keys,
            namespace: process.namespaces.find(name.key).map(|namespace| namespace.name.as_str().into()),
            upstream: node.address(),
            why: process.cache.last_change(name.key),
            outcome: None,
            error: Some(Trace::UNANSWERED.into()),
            since,
            sent,
            heard: sent,
            end: sent,
            ended_at: SystemTime::now(),
        };
        Some(Box::new(Self { process: process.clone(), trace: Some(trace) }))
    }

    /// The upstream has answered with this error.
    #[cold]
    pub fn failed(&mut self, line: &[u8]) {
        let Some(trace) = self.trace.as_mut().filter(|trace| trace.is_unanswered()) else { return };
        let word = line.strip_prefix(b"-").unwrap_or(line);
        let is_code = |byte: &&u8| byte.is_ascii_uppercase() || **byte == b'_';
        let end = word.iter().take(LONGEST_WORD).take_while(is_code).count();
        // One in other words, as a script may have, may hold anything.
        let code = if end == 0 { "ERR".into() } else { String::from_utf8_lossy(&word[..end]) };
        trace.error = Some(code.into());
    }

    /// The reply is not kept, or is.
    #[cold]
    pub fn ended(&mut self, outcome: Reason) {
        self.trace.iter_mut().for_each(|trace| trace.outcome = Some(outcome));
    }

    /// The reply came from the node at `heard`, and was handed over.
    #[cold]
    pub fn answered(mut self, node: &Node, heard: Micros) {
        let (metrics, at) = (&self.process.metrics, SystemTime::now());
        let Some(trace) = &mut self.trace else { return };
        trace.heard = heard;
        trace.error.take_if(|error| **error == *Trace::UNANSWERED);
        let micros = heard.saturating_sub(trace.since);
        let exemplar = Exemplar { trace: trace.id, span: trace.read, micros, at };
        metrics.upstream_latency.exemplars.note(exemplar);
        node.latency.exemplars.note(exemplar);
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let Some(mut trace) = self.trace.take() else { return };
        trace.end = self.process.now();
        trace.ended_at = SystemTime::now();
        if trace.is_unanswered() {
            trace.heard = trace.end;
        }
        self.process.traces.add(trace, &self.process.metrics.spans_crowded);
    }
}
