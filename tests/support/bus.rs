//! The cluster bus of a test's cluster, through a relay that can cut a node off from all others.
//!
//! Each node announces a port of the relay in the place of its bus port. Who calls there is told by its source address,
//! which each node has for itself. Clients are not concerned: to them a node that is cut off looks as before.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};

struct Gate {
    is_cut: watch::Sender<bool>,
    /// What the node announces.
    announced: u16,
    /// The node's own.
    bus_port: u16,
}

type Nodes = Arc<Mutex<Vec<Gate>>>;

pub struct Bus {
    nodes: Nodes,
    runtime: tokio::runtime::Handle,
    _ended: oneshot::Sender<()>,
}

impl Bus {
    pub fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (ended, end) = oneshot::channel::<()>();
        std::thread::spawn(move || runtime.block_on(end));
        Self { nodes: Nodes::default(), runtime: handle, _ended: ended }
    }

    /// The address from which the node at this place calls others.
    pub fn source(node: usize) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 1, u8::try_from(node + 1).expect("few nodes"))
    }

    /// Makes room for the next node; gives the port that it is to announce.
    pub fn add(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let me = {
            let mut nodes = self.nodes.lock().unwrap();
            nodes.push(Gate { is_cut: watch::Sender::new(false), announced: port, bus_port: 0 });
            nodes.len() - 1
        };
        let nodes = self.nodes.clone();
        self.runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                if let Ok((caller, from)) = listener.accept().await {
                    tokio::spawn(relay(caller, from, me, nodes.clone()));
                }
            }
        });
        port
    }

    /// The port that the node at this place announces.
    pub fn port(&self, node: usize) -> u16 {
        self.nodes.lock().unwrap()[node].announced
    }

    /// Says where the node at this place hears the bus itself.
    pub fn lead_to(&self, node: usize, bus_port: u16) {
        self.nodes.lock().unwrap()[node].bus_port = bus_port;
    }

    /// Closes the node's links with all others, and lets it have no new ones.
    pub fn cut(&self, node: usize) {
        self.nodes.lock().unwrap()[node].is_cut.send_replace(true);
    }

    pub fn restore(&self, node: usize) {
        self.nodes.lock().unwrap()[node].is_cut.send_replace(false);
    }
}

async fn relay(mut caller: TcpStream, from: SocketAddr, called: usize, nodes: Nodes) {
    let (bus_port, mut one, mut other) = {
        let nodes = nodes.lock().unwrap();
        let calling = (0..nodes.len()).find(|node| Bus::source(*node) == from.ip());
        let gate = &nodes[called];
        (gate.bus_port, gate.is_cut.subscribe(), nodes[calling.unwrap_or(called)].is_cut.subscribe())
    };
    let open = async {
        let mut bus = TcpStream::connect(("127.0.0.1", bus_port)).await?;
        bus.set_nodelay(true)?;
        tokio::io::copy_bidirectional(&mut caller, &mut bus).await
    };
    // A cut comes first: of one that is cut off, not a byte passes.
    tokio::select! {
        biased;
        _ = one.wait_for(|cut| *cut) => {}
        _ = other.wait_for(|cut| *cut) => {}
        _ = open => {}
    }
}
