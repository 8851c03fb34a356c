//! Follows what the sentinels say: where the master of the service is.
//!
//! Invariants:
//! - Each sentinel that can be reached is subscribed to, and asked every few seconds besides: what one message missed is found
//!   by the others, or by the next answer. Those that the URL does not name are learnt from those that it does.
//! - Whose answer counts is decided in one place: see [`ballot`].
//! - When the master is another: new connections lead there first, then nothing is filled any more that was read elsewhere,
//!   then what was filled is void. Each connection to the old one ends, with what is in flight on it.
//! - A sentinel that does not answer, or closes each connection behind its answer, is asked again after a delay that grows to
//!   some seconds. One that does is asked sooner than every few seconds when it tells of a switch, and, once a second at
//!   most, while what it named is no master.

mod ballot;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use self::ballot::{Choice, Voter, choose, review};
use super::node::Node;
use super::shared::Process;
use super::watch::leave;
use crate::io::Address;
use crate::metrics::Seldom;
use crate::upstream::{Answer, Asking, Elected, Location, Sentinel, backoff};

/// Between two questions to a sentinel that has nothing to tell; half of it at least.
const POLL: Duration = Duration::from_secs(5);

/// Between two attempts to reach one.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// Between a question and the next that a doubt asks for.
const DOUBTED: Duration = Duration::from_secs(1);

/// What the questions' tasks may have said and nobody has read.
const UNREAD: usize = 64;

/// What a sentinel's task says.
struct Word {
    from: Address,
    said: Result<Answer, String>,
}

/// Who asks, and where the answer goes.
struct Council {
    process: Arc<Process>,
    node: Arc<Node>,
    elected: Arc<Elected>,
    asking: Asking,
    voters: Vec<Voter>,
    tasks: JoinSet<()>,
    /// Of the same places as the voters.
    attended: Vec<Attended>,
    words: mpsc::Sender<Word>,
    believed: Option<Choice>,
}

/// The task that asks a sentinel, and what was told of it.
struct Attended {
    task: AbortHandle,
    failing: Seldom,
}

/// Keeps where the node is up to date, if sentinels say that; these are asked first. Runs until it is dropped, in a
/// `LocalRuntime`.
pub async fn follow_sentinels(
    process: Arc<Process>,
    node: Arc<Node>,
    asking: Asking,
    addresses: Vec<Address>,
) {
    let Location::Elected(elected) = node.upstream.address.clone() else {
        return std::future::pending().await;
    };
    let (words, mut heard) = mpsc::channel(UNREAD);
    let (voters, attended, tasks) = (Vec::new(), Vec::new(), JoinSet::new());
    let mut council =
        Council { process, node, elected, asking, voters, tasks, attended, words, believed: None };
    for address in addresses {
        council.admit(address, true);
    }
    loop {
        tokio::select! {
            Some(word) = heard.recv() => council.hear(word),
            Some(Err(ended)) = council.tasks.join_next() => {
                if ended.is_panic() {
                    std::panic::resume_unwind(ended.into_panic());
                }
            }
        }
    }
}

impl Council {
    fn admit(&mut self, address: Address, from_url: bool) {
        if self.voters.iter().any(|voter| voter.address == address) {
            return;
        }
        let asking = Asking { dial: self.asking.dial.another(), ..self.asking.clone() };
        let (words, doubts) = (self.words.clone(), self.elected.doubts());
        let task = self.tasks.spawn_local(attend(asking, address.clone(), words, doubts));
        self.attended.push(Attended { task, failing: Seldom::default() });
        self.voters.push(Voter::new(address, from_url));
    }

    fn hear(&mut self, Word { from, said }: Word) {
        let Some(i) = self.voters.iter().position(|voter| voter.address == from) else { return };
        let said = said.and_then(|answer| answer.master_of(self.elected.service()).map(|_| answer.clone()));
        let voter = &mut self.voters[i];
        match said {
            Ok(answer) => {
                let stays = voter.answer.is_some();
                (voter.answer, voter.known, voter.why) = (Some(answer), true, None);
                // One that goes behind each answer would be news each time.
                if stays && self.attended[i].failing.over() {
                    info!(sentinel = %from, "the sentinel answers now");
                }
            }
            Err(why) => self.lose(i, why),
        }
        self.count();
        let (new, gone) = review(&self.voters);
        for i in gone.into_iter().rev() {
            self.voters.remove(i);
            self.attended.remove(i).task.abort();
        }
        new.into_iter().for_each(|address| self.admit(address, false));
        if let Some(choice) = choose(&self.voters, self.believed.as_ref()) {
            self.believe(choice);
        }
    }

    /// It does not answer, or not what is of use.
    fn lose(&mut self, i: usize, why: String) {
        self.process.metrics.sentinel_failures.inc();
        let (voter, failing) = (&mut self.voters[i], &self.attended[i].failing);
        let service = self.elected.service();
        if !voter.from_url {
            // It may have told others an address that leads nowhere from here.
            debug!(sentinel = %voter.address, service, %why, "a sentinel that others tell of cannot be asked");
        } else if let Some(untold) = failing.now() {
            warn!(sentinel = %voter.address, service, untold, %why, "a sentinel cannot be asked where the master is: look whether it runs, and at sentinel-password and the service's name");
        }
        voter.answer = None;
        voter.why = Some(why);
        // Who waits for the first word is told when nobody is left who may say it.
        if self.believed.is_none() && self.voters.iter().all(|voter| voter.why.is_some()) {
            self.elected.explain(self.reasons());
        }
    }

    /// Why nobody says where the master is, of the first few.
    fn reasons(&self) -> String {
        const SHOWN: usize = 3;
        let of = |voter: &Voter| Some(format!("sentinel {}: {}", voter.address, voter.why.as_ref()?));
        let reasons: Vec<String> = self.voters.iter().filter_map(of).take(SHOWN).collect();
        reasons.join("; ")
    }

    fn count(&self) {
        let answering = self.voters.iter().filter(|voter| voter.answer.is_some()).count();
        self.process.metrics.sentinels.set(answering as u64);
    }

    fn believe(&mut self, choice: Choice) {
        if self.believed.as_ref() == Some(&choice) {
            return;
        }
        let address = choice.address.clone();
        let is_first = self.believed.replace(choice).is_none();
        // From here on new connections lead there; what was begun before is ended.
        if self.elected.move_to(address.clone()) {
            leave(&self.process, &self.node, "the sentinels name another master");
        } else if is_first {
            info!(service = self.elected.service(), master = %address, "the sentinels name the master");
        }
    }
}

/// Asks one sentinel, and hears it, until the task is ended.
async fn attend(
    asking: Asking,
    address: Address,
    words: mpsc::Sender<Word>,
    mut doubts: watch::Receiver<()>,
) {
    let mut failures = 0;
    loop {
        let Err(why) = listen(&asking, &address, &words, &mut doubts, &mut failures).await;
        let _ = words.send(Word { from: address.clone(), said: Err(why) }).await;
        sleep(backoff(RETRY, failures)).await;
        failures = failures.saturating_add(1);
    }
}

/// Asks and hears on one connection; says why that ended.
async fn listen(
    asking: &Asking,
    address: &Address,
    words: &mpsc::Sender<Word>,
    doubts: &mut watch::Receiver<()>,
    failures: &mut u32,
) -> Result<std::convert::Infallible, String> {
    let mut sentinel = Sentinel::connect(asking, address).await?;
    let mut stays = false;
    loop {
        doubts.mark_unchanged();
        let answer = sentinel.ask(asking).await?;
        if std::mem::replace(&mut stays, true) {
            *failures = 0;
        }
        let _ = words.send(Word { from: address.clone(), said: Ok(answer) }).await;
        tokio::select! {
            switched = sentinel.switched() => switched?,
            // A switch is worth a question at once, a doubt no more than one every so often.
            Ok(()) = async { sleep(DOUBTED).await; doubts.changed().await } => {}
            () = sleep(backoff((POLL, POLL), 0)) => {}
        }
    }
}
