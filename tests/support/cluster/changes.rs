//! What is done to a cluster: slots move, nodes come, go and change places.

use std::time::{Duration, Instant};

use nearside::resp::key_slot;

use super::super::Conn;
use super::{Cluster, Failover, NODE_TIMEOUT, Node, Reset, State, in_time, in_time_else, view::Member};

/// How long a migration of keys may wait for the other node, in milliseconds.
const MIGRATE_TIMEOUT: u64 = 10_000;

impl Cluster {
    /// Moves a slot with all its keys, and waits until all agree.
    #[track_caller]
    pub fn migrate(&self, slot: u16, from: usize, to: usize) {
        self.begin_move(slot, from, to);
        while self.move_keys(slot, from, to, 100) > 0 {}
        self.end_move(slot, from, to);
    }

    /// `IMPORTING` and `MIGRATING`: from now on who asks for a key that is not there is sent on by ASK.
    #[track_caller]
    pub fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        to.order(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", from.id()));
        from.order(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", to.id()));
    }

    /// Moves up to so many of the slot's keys; says how many there were.
    #[track_caller]
    pub fn move_keys(&self, slot: u16, from: usize, to: usize, most: usize) -> usize {
        let keys = self.keys_in_slot(slot, from, most);
        self.move_these(&keys, from, to);
        keys.len()
    }

    /// The names of up to so many keys of the slot that a node holds.
    pub fn keys_in_slot(&self, slot: u16, node: usize, most: usize) -> Vec<Vec<u8>> {
        let mut conn = self.nodes[node].connect();
        let reply = conn.cmd(&format!("CLUSTER GETKEYSINSLOT {slot} {most}"));
        let mut lines = reply.split(|byte| *byte == b'\n').skip(1);
        let mut keys = Vec::new();
        while let (Some(_), Some(key)) = (lines.next(), lines.next()) {
            keys.push(key.strip_suffix(b"\r").unwrap_or(key).to_vec());
        }
        keys
    }

    /// Moves these keys of one slot.
    #[track_caller]
    pub fn move_these(&self, keys: &[impl AsRef<[u8]>], from: usize, to: usize) {
        if keys.is_empty() {
            return;
        }
        let (port, timeout) = (self.nodes[to].port.to_string(), MIGRATE_TIMEOUT.to_string());
        let words = ["MIGRATE", "127.0.0.1", &port, "", "0", &timeout, "KEYS"];
        let words = words.iter().map(|word| word.as_bytes());
        let words: Vec<&[u8]> = words.chain(keys.iter().map(AsRef::as_ref)).collect();
        let said = self.nodes[from].connect().args(&words);
        let said = String::from_utf8_lossy(&said);
        // They may have expired, or been deleted.
        assert!(said.starts_with("+OK") || said.starts_with("+NOKEY"), "{said}");
    }

    /// `NODE`, said to the new owner first, then to the old one and all other masters, and waits until all agree.
    ///
    /// The others are told when they know the new owner's epoch: what the old one has said of the slot before may still be on the
    /// bus, and whoever has the slot with an epoch that is older than that would give it back. Servers can then send clients to and fro
    /// for ever.
    #[track_caller]
    pub fn end_move(&self, slot: u16, from: usize, to: usize) {
        self.assign(slot, to, &[to]);
        let id = self.nodes[to].id();
        in_time("all know the epoch of a slot's new owner", || {
            let known = |node: &Node| node.view().into_iter().find(|of| of.id == id).map(|of| of.epoch);
            let own = known(&self.nodes[to]);
            own.is_some() && self.up().all(|node| known(node) == own)
        });
        self.assign(slot, to, &[from]);
        let others = self.masters().into_iter().map(|node| node.place).filter(|place| *place != from);
        self.assign(slot, to, &others.filter(|place| *place != to).collect::<Vec<_>>());
        self.wait_owned(slot, to);
    }

    /// Moves a slot with all its keys at once, as servers do that know how ([`atomic_migration`]), and waits until all agree.
    #[track_caller]
    pub fn migrate_atomically(&self, slot: u16, from: usize, to: usize) {
        let (from, id) = (&self.nodes[from], self.nodes[to].id());
        match atomic_migration(&mut from.connect()) {
            Some(Atomic::Valkey) => {
                from.order(&format!("CLUSTER MIGRATESLOTS SLOTSRANGE {slot} {slot} NODE {id}"))
            }
            Some(Atomic::Redis) => {
                let said = self.nodes[to].ask(&format!("CLUSTER MIGRATION IMPORT {slot} {slot}"));
                assert!(said.starts_with('$'), "the number of a task: {said}");
            }
            None => panic!("the server moves no slots at once"),
        }
        self.wait_owned(slot, to);
    }

    /// `STABLE` to both: the slot stays where it is.
    #[track_caller]
    pub fn abort_move(&self, slot: u16, from: usize, to: usize) {
        for node in [from, to] {
            self.nodes[node].order(&format!("CLUSTER SETSLOT {slot} STABLE"));
        }
    }

    /// The new owner takes the slot with a new epoch, and the old one, which still holds keys, learns of it on the bus and
    /// drops them. Redis 7.0 tells nobody.
    #[track_caller]
    pub fn setslot_without_migrate(&self, slot: u16, from: usize, to: usize) {
        self.nodes[to].order(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", self.nodes[from].id()));
        self.assign(slot, to, &[to]);
        self.wait_owned(slot, to);
    }

    /// Says to these nodes whose the slot is.
    #[track_caller]
    pub fn assign(&self, slot: u16, owner: usize, tell: &[usize]) {
        let id = self.nodes[owner].id();
        for node in tell {
            self.nodes[*node].order(&format!("CLUSTER SETSLOT {slot} NODE {id}"));
        }
    }

    /// Waits until all that are up say that the slot is the node's, and know its epoch: else who takes the slot next may do
    /// so with an epoch that is not newer, and would have to give it back.
    #[track_caller]
    pub fn wait_owned(&self, slot: u16, owner: usize) {
        let id = self.nodes[owner].id();
        let has = |of: &Member| of.id == id && of.owns(slot);
        let agree = || self.up().all(|node| node.view().iter().any(has)) && self.agrees();
        in_time_else(agree, || {
            let views = self.up().map(|node| format!("{}: {:?}", node.port, node.view()));
            format!("all agree that slot {slot} is that of {id}:\n{}", views.collect::<Vec<_>>().join("\n"))
        });
    }

    /// Places of the node's replicas that are up.
    pub fn replicas_of(&self, master: usize) -> Vec<usize> {
        let id = self.nodes[master].id();
        let follows = |node: &&Node| node.itself().is_some_and(|me| me.master.as_ref() == Some(&id));
        self.up().filter(follows).map(|node| node.place).collect()
    }

    /// The place of the master of a replica, if it is one.
    pub fn master_of(&self, replica: usize) -> Option<usize> {
        let id = self.nodes[replica].itself()?.master?;
        self.nodes.iter().position(|node| node.id() == id)
    }

    /// Lets the replica take its master's place, and waits until all agree.
    ///
    /// Within twice the node timeout no master votes twice for replicas of one and the same. What is asked for meanwhile comes to
    /// nothing, but holds writes up for five seconds; so this waits until it is past.
    #[track_caller]
    pub fn failover(&self, replica: usize, how: Failover) {
        let node = &self.nodes[replica];
        // One that was reset is called otherwise since.
        let master = self.master_of(replica);
        let replaced = master.and_then(|master| *self.nodes[master].replaced.lock().unwrap());
        let votes = Duration::from_millis(2 * NODE_TIMEOUT + 300);
        if let Some(wait) = replaced.and_then(|at| votes.checked_sub(at.elapsed())) {
            std::thread::sleep(wait);
        }
        node.order(match how {
            Failover::Graceful => "CLUSTER FAILOVER",
            Failover::Force => "CLUSTER FAILOVER FORCE",
            Failover::Takeover => "CLUSTER FAILOVER TAKEOVER",
        });
        in_time("the replica is the master", || node.is_master() && node.state_is_ok() && self.agrees());
        if let Some(master) = master {
            *self.nodes[master].replaced.lock().unwrap() = Some(Instant::now());
        }
    }

    /// Waits until others have taken all slots that the node had, which is away or lost them; says who.
    #[track_caller]
    pub fn wait_promoted(&self, lost: &Node) -> usize {
        let mut heir = None;
        in_time("a replica takes the place of the lost master", || {
            let id = lost.id();
            let bereft = |node: &Node| {
                let view = node.view();
                let covered: usize = view.iter().flat_map(|of| &of.slots).map(|range| range.len()).sum();
                covered == super::SLOTS && !view.iter().any(|of| of.id == id && !of.slots.is_empty())
            };
            let all_are_well = self.up().all(|node| bereft(node) && node.state_is_ok()) && self.agrees();
            let newest = self.up().filter(|node| node.is_master()).max_by_key(|node| epoch(node));
            heir = newest.map(|node| node.place);
            all_are_well && heir.is_some()
        });
        *lost.replaced.lock().unwrap() = Some(Instant::now());
        heir.expect("somebody")
    }

    /// Adds an empty master, and waits until all know it; says its place.
    #[track_caller]
    pub fn add_node(&mut self) -> usize {
        self.launch();
        let place = self.nodes.len() - 1;
        self.meet_all(place);
        place
    }

    fn meet_all(&self, place: usize) {
        let node = &self.nodes[place];
        self.up().filter(|other| other.place != place).for_each(|other| self.introduce(node, other));
        in_time("all know the new node", || {
            let id = node.id();
            let known = |of: &Node| of.view().iter().any(|of| of.id == id && of.is_well());
            self.up().all(known) && node.view().iter().filter(|of| of.is_well()).count() >= self.up().count()
        });
        self.wait_ready();
    }

    /// Makes a node, which has no slots and no keys, a replica, and waits until it is in step.
    #[track_caller]
    pub fn replicate(&self, replica: usize, master: usize) {
        self.nodes[replica].order(&format!("CLUSTER REPLICATE {}", self.nodes[master].id()));
        self.wait_ready();
    }

    /// Takes a node, which has no slots, out of the cluster. It goes on running, and is a cluster of one.
    #[track_caller]
    pub fn remove_node(&self, place: usize) {
        let node = &self.nodes[place];
        node.becomes(State::Left);
        let id = node.id();
        self.forget(&id);
        self.reset(place, Reset::Hard);
    }

    /// All that are up forget a node that is not, or has another id now.
    #[track_caller]
    pub fn forget(&self, id: &str) {
        for other in self.up() {
            let said = other.ask(&format!("CLUSTER FORGET {id}"));
            assert!(said.starts_with("+OK") || said.starts_with("-ERR Unknown node"), "{said}");
        }
    }

    /// Empties a node and resets it: it knows nobody and has no slots. The others go on to believe that it has them, and it
    /// does not fail to them, so its replica takes its place only when it is told to ([`Failover::Force`]).
    #[track_caller]
    pub fn reset(&self, place: usize, how: Reset) {
        let node = &self.nodes[place];
        let order = if how == Reset::Hard { "CLUSTER RESET HARD" } else { "CLUSTER RESET SOFT" };
        // Clients may write to it in between.
        in_time("it is reset", || {
            if node.is_master() {
                node.order("FLUSHALL");
            }
            node.ask(order).starts_with("+OK")
        });
        let id = node.ask("CLUSTER MYID").lines().nth(1).expect("an id").to_owned();
        *node.id.lock().unwrap() = id;
    }

    /// Resets a node of the cluster, which is not counted among those that are up until it has joined again.
    #[track_caller]
    pub fn reset_node(&self, place: usize, how: Reset) {
        self.nodes[place].becomes(State::Left);
        self.reset(place, how);
    }

    /// Lets a node that left, or was reset, join again as an empty master, and waits until all know it.
    #[track_caller]
    pub fn rejoin(&self, place: usize) {
        self.nodes[place].becomes(State::Up);
        self.meet_all(place);
    }

    /// Kills all that are up and starts them again without data. They know each other, and who has which slots.
    #[track_caller]
    pub fn restart_all_empty(&self) {
        let all: Vec<_> = self.up().collect();
        all.iter().for_each(|node| node.kill());
        all.iter().for_each(|node| node.restart());
        self.wait_ready();
    }

    /// Whose a key is; the place.
    pub fn place_of(&self, key: &str) -> Option<usize> {
        self.owner_of_slot(key_slot(key.as_bytes())).map(|node| node.place)
    }
}

/// How a server is told to move slots at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Atomic {
    /// From 9.0, said to the old owner.
    Valkey,
    /// From 8.4, said to the new one.
    Redis,
}

/// Whether the server can do that.
pub fn atomic_migration(conn: &mut Conn) -> Option<Atomic> {
    let mut knows = |command: &str| conn.text(&format!("COMMAND INFO {command}")).contains("cluster|");
    let valkey = knows("cluster|migrateslots").then_some(Atomic::Valkey);
    valkey.or_else(|| knows("cluster|migration").then_some(Atomic::Redis))
}

/// The node's configuration epoch; the newest is of who was promoted last.
fn epoch(node: &Node) -> u64 {
    let info = node.ask("CLUSTER INFO");
    let line = info.lines().find_map(|line| line.strip_prefix("cluster_my_epoch:"));
    line.and_then(|epoch| epoch.trim().parse().ok()).unwrap_or(0)
}
