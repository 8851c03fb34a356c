//! Where the upstream is: always at one address, or where the sentinels have last said, or at one address for as long as it is a
//! node of its cluster.
//!
//! Invariants:
//! - Whoever connects is given the address together with what tells of the moves behind it, so a connection never outlives the
//!   address that it was made to.
//! - A move ends each connection that was made before it, whoever has it and whatever it waits for. The server that it was on
//!   is not the master any more, and may not know it yet: its answers, its silence and its acknowledgements are worth nothing.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use crate::io::Address;

/// See the [module](self). Clones know the same.
#[derive(Clone, Debug)]
pub enum Location {
    Fixed(Arc<Address>),
    Elected(Arc<Elected>),
    Member(Arc<Member>),
}

/// The place of a node of a cluster.
#[derive(Debug)]
pub struct Member {
    address: Arc<Address>,
    left: watch::Sender<bool>,
}

impl Member {
    pub fn new(address: Address) -> Arc<Self> {
        Arc::new(Self { address: Arc::new(address), left: watch::Sender::new(false) })
    }

    pub fn address(&self) -> &Arc<Address> {
        &self.address
    }

    /// It is a node no more: all connections to it end, and none is made.
    pub fn leave(&self) {
        self.left.send_replace(true);
    }
}

/// The place of the master of a service, which sentinels name.
#[derive(Debug)]
pub struct Elected {
    service: String,
    named: watch::Sender<Named>,
    /// Told when the address that they have named turns out not to be a master's, or not to be there.
    doubts: watch::Sender<()>,
}

#[derive(Clone, Debug)]
pub(super) struct Named {
    address: Option<Arc<Address>>,
    /// Why there is none, once that is known.
    why: Option<Arc<str>>,
}

impl Elected {
    /// Nobody has said yet where it is.
    pub fn new(service: impl Into<String>) -> Arc<Self> {
        let named = Named { address: None, why: None };
        Arc::new(Self {
            service: service.into(),
            named: watch::Sender::new(named),
            doubts: watch::Sender::new(()),
        })
    }

    pub fn service(&self) -> &str {
        &self.service
    }

    /// Where it is as far as it is known.
    pub fn address(&self) -> Option<Arc<Address>> {
        self.named.borrow().address.clone()
    }

    /// It is there from now on. All connections to where it was end; says whether it was elsewhere.
    pub fn move_to(&self, address: Address) -> bool {
        let mut before = None;
        let moves = self.named.send_if_modified(|named| {
            let moves = named.address.as_deref() != Some(&address);
            if moves {
                before = named.address.replace(Arc::new(address));
            }
            moves
        });
        moves && before.is_some()
    }

    /// Why nobody knows where it is; of no account once it is known.
    pub fn explain(&self, why: String) {
        self.named.send_if_modified(|named| {
            let unknown = named.address.is_none();
            if unknown {
                named.why = Some(why.into());
            }
            unknown
        });
    }

    /// What they have named is in doubt.
    pub fn doubt(&self) {
        self.doubts.send_replace(());
    }

    /// Told of doubts.
    pub fn doubts(&self) -> watch::Receiver<()> {
        self.doubts.subscribe()
    }
}

impl Location {
    /// Where to connect, and what tells of moves from there. Waits until something is known: at the start the sentinels may
    /// not have been asked yet. Errors: nobody knows, and why.
    pub(super) async fn now(&self) -> Result<(Arc<Address>, Moves), String> {
        let elected = match self {
            Location::Fixed(address) => return Ok((address.clone(), Moves::Never)),
            Location::Member(member) => {
                let left = member.left.subscribe();
                let is_gone = *left.borrow();
                return match is_gone {
                    true => Err(LEFT.to_owned()),
                    false => Ok((member.address.clone(), Moves::Left(left))),
                };
            }
            Location::Elected(elected) => elected,
        };
        let mut moves = elected.named.subscribe();
        // What it gives is seen, so the next change is a move from there.
        let named = moves.wait_for(|named| named.address.is_some() || named.why.is_some()).await;
        let (address, why) = named.map_or((None, None), |named| (named.address.clone(), named.why.clone()));
        let address =
            address.ok_or_else(|| format!("no master is known: {}", why.as_deref().unwrap_or("")))?;
        Ok((address, Moves::Named(moves)))
    }

    /// Who is to be asked again if it is not there, or no master.
    pub(super) fn elected(&self) -> Option<&Arc<Elected>> {
        match self {
            Location::Fixed(_) | Location::Member(_) => None,
            Location::Elected(elected) => Some(elected),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Fixed(address) => address.fmt(f),
            Location::Member(member) => member.address.fmt(f),
            Location::Elected(elected) => match elected.address() {
                Some(address) => write!(f, "{} ({address})", elected.service),
                None => f.write_str(&elected.service),
            },
        }
    }
}

impl From<Address> for Location {
    fn from(address: Address) -> Self {
        Location::Fixed(Arc::new(address))
    }
}

/// Why a connection ends to what is no node of the cluster any more.
const LEFT: &str = "it is no master of the cluster any more";

/// Tells when the upstream has moved.
pub(super) enum Moves {
    Never,
    Named(watch::Receiver<Named>),
    Left(watch::Receiver<bool>),
}

impl Moves {
    /// Why a connection ends that was made before a move.
    pub(super) fn cause(&self) -> &'static str {
        match self {
            Moves::Left(_) => LEFT,
            Moves::Never | Moves::Named(_) => "the sentinels have named another master",
        }
    }

    /// Ends with the first move; never of what does not move.
    pub(super) async fn next(&mut self) {
        let moved = match self {
            Moves::Never => false,
            Moves::Named(named) => named.changed().await.is_ok(),
            Moves::Left(left) => left.wait_for(|left| *left).await.is_ok(),
        };
        if !moved {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn at(port: u16) -> Address {
        Address::Tcp { host: "h".into(), port }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_came_before_a_move_is_told_of_it_and_nobody_else() {
        const LONG: Duration = Duration::from_secs(1);
        let elected = Elected::new("main");
        let location = Location::Elected(elected.clone());
        assert!(timeout(LONG, location.now()).await.is_err(), "nobody has said anything yet");
        assert_eq!(location.to_string(), "main");
        let (early, ()) = tokio::join!(location.now(), async { elected.explain("none answers".into()) });
        assert!(early.is_err_and(|why| why == "no master is known: none answers"));
        assert!(!elected.move_to(at(1)), "from nowhere");
        assert_eq!(location.to_string(), "main (h:1)");
        let (address, mut moves) = location.now().await.unwrap();
        assert_eq!(*address, at(1));
        assert!(!elected.move_to(at(1)), "where it was");
        elected.explain("nothing that matters".into());
        elected.doubt();
        assert!(timeout(LONG, moves.next()).await.is_err());
        assert!(elected.move_to(at(2)));
        assert!(timeout(LONG, moves.next()).await.is_ok());
        let (address, mut moves) = location.now().await.unwrap();
        assert_eq!(*address, at(2));
        assert!(timeout(LONG, moves.next()).await.is_err(), "it came after");
        let (_, mut moves) = Location::from(at(1)).now().await.unwrap();
        assert!(timeout(LONG, moves.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_connected_to_a_node_is_told_that_it_has_left_and_nobody_comes_any_more() {
        const LONG: Duration = Duration::from_secs(1);
        let member = Member::new(at(1));
        let location = Location::Member(member.clone());
        assert_eq!(location.to_string(), "h:1");
        let (address, mut moves) = location.now().await.unwrap();
        assert_eq!(*address, at(1));
        assert!(timeout(LONG, moves.next()).await.is_err());
        member.leave();
        assert!(timeout(LONG, moves.next()).await.is_ok());
        assert!(location.now().await.is_err_and(|why| why == moves.cause()));
    }
}
