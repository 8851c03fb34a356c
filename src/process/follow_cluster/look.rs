//! Asks nodes how the cluster stands.
//!
//! Invariants: several are asked, one after another and the next before long; of those that answer in time the one counts that
//! knows most. One that says that the cluster is down, or is of another cluster, counts only if nobody else answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::io::Address;
use crate::resp::Protocol;
use crate::upstream::{self, ConnectError, Identity, NodeLine, Probe, SlotRange, Who};

/// After so long another node is asked too.
const STAGGER: Duration = Duration::from_millis(200);

/// How many are asked at most.
const MOST: usize = 16;

/// What a node has said of the cluster.
pub(super) struct Seen {
    /// Who was asked.
    pub(super) by: Address,
    pub(super) ranges: Vec<SlotRange>,
    pub(super) lines: Vec<NodeLine>,
    /// It says that the cluster takes requests.
    is_ok: bool,
    epoch: u64,
}

impl Seen {
    /// The host that was asked.
    pub(super) fn host(&self) -> &str {
        match &self.by {
            Address::Tcp { host, .. } => host,
            Address::Unix(_) => "127.0.0.1",
        }
    }
}

/// Who is to be asked, and what would be believed at once.
pub(super) struct Question {
    pub(super) upstream: upstream::Settings,
    pub(super) candidates: Vec<Address>,
    /// What nodes are called now; one that knows none of them is of another cluster.
    pub(super) known: Vec<Box<str>>,
    /// What was seen last was of this epoch.
    pub(super) epoch: u64,
}

/// Asks. Errors: nobody has answered, and why.
pub(super) async fn look(question: Question) -> Result<Box<Seen>, String> {
    let Question { upstream, candidates, known, epoch } = question;
    let mut waiting = candidates.into_iter().take(MOST);
    let (mut asked, mut best, mut why) =
        (JoinSet::new(), None::<((bool, bool, u64), Box<Seen>)>, String::new());
    loop {
        let next = waiting.next();
        let is_last = next.is_none();
        if let Some(address) = next {
            let upstream = upstream::Settings {
                address: address.clone().into(),
                dial: upstream.dial.another(),
                ..upstream.without_limit()
            };
            asked.spawn_local(async move { (ask(&upstream, &address).await, address) });
        }
        let mut wait = std::pin::pin!(sleep(STAGGER));
        loop {
            let answer = tokio::select! {
                answer = asked.join_next() => answer,
                () = &mut wait, if !is_last => break,
            };
            match answer {
                // Nobody is left who could answer.
                None if is_last => {
                    return best.map(|(_, seen)| seen).ok_or(why);
                }
                None => break,
                Some(Ok((Ok(seen), _))) => {
                    let is_known = |id: &str| known.iter().any(|known| **known == *id);
                    let is_ours = known.is_empty() || seen.lines.iter().any(|line| is_known(&line.id));
                    if is_ours && seen.is_ok && seen.epoch >= epoch {
                        return Ok(seen);
                    }
                    let worth = (is_ours, seen.is_ok, seen.epoch);
                    if best.as_ref().is_none_or(|(least, _)| worth > *least) {
                        best = Some((worth, seen));
                    }
                }
                Some(Ok((Err(error), address))) => {
                    why = format!("{address}: {error}");
                    if !is_last {
                        break;
                    }
                }
                Some(Err(ended)) => {
                    if ended.is_panic() {
                        std::panic::resume_unwind(ended.into_panic());
                    }
                }
            }
        }
    }
}

async fn ask(upstream: &upstream::Settings, address: &Address) -> Result<Box<Seen>, ConnectError> {
    let who = Who::Own(upstream.own.clone());
    let identity = Identity { who, db: 0, protocol: Protocol::Resp2 };
    let asking = async {
        let mut probe = Probe::open(upstream, &identity).await?;
        let (_, slots) = probe.ask(&[b"CLUSTER", b"SLOTS"]).await?;
        let Some(ranges) = SlotRange::all_of(&slots) else {
            let said = String::from_utf8_lossy(&slots);
            return match said.contains("cluster support disabled") || said.contains("unknown command") {
                true => {
                    Err(ConnectError::Io("it is no node of a cluster; for one server write redis://".into()))
                }
                false => Err(ConnectError::Io(said.trim().into())),
            };
        };
        let (_, nodes) = probe.ask(&[b"CLUSTER", b"NODES"]).await?;
        let (_, info) = probe.ask(&[b"CLUSTER", b"INFO"]).await?;
        let lines = NodeLine::all_of(&nodes).unwrap_or_default();
        let info = String::from_utf8_lossy(&info);
        let field =
            |name: &str| info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
        let is_ok = field("cluster_state").is_none_or(|state| state == "ok");
        let epoch = field("cluster_current_epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        Ok(Box::new(Seen { by: address.clone(), ranges, lines, is_ok, epoch }))
    };
    // Each step has its own bound; a node that takes its time with each of them is none to wait for.
    timeout(2 * upstream.connect_timeout, asking)
        .await
        .unwrap_or_else(|_| Err(ConnectError::Io("it is too slow".into())))
}

impl Seen {
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// Those, each once, in this order.
pub(super) fn candidates(all: impl Iterator<Item = Address>) -> Vec<Address> {
    let mut candidates = Vec::new();
    for address in all {
        if !candidates.contains(&address) {
            candidates.push(address);
        }
    }
    candidates
}

/// Where a node is, if that is known.
pub(super) fn place(address: Option<Arc<Address>>) -> Option<Address> {
    address.map(|address| (*address).clone())
}
