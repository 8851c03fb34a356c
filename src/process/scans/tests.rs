use super::super::fixture::nowhere;
use super::super::node_id::NodeId;
use super::*;
use crate::cache::Cache;
use crate::process::Ticket;

/// Two nodes, the first with the hash slots below 8192.
fn halves() -> Topology {
    let cache = Cache::<Ticket>::new(1 << 20, 1000, 0);
    let node = |id: u16| Arc::new(Node::new(NodeId(id), nowhere(), &cache).unwrap().named(&format!("n{id}")));
    Topology::sharded((0..2).map(node).collect(), |slot| Some(u16::from(slot >= 8192))).unwrap()
}

/// What node `me` says, `epoch` being its own, and `mine` its slots; `moving` is what is on the move.
fn look(topology: &Topology, me: usize, epoch: u64, mine: &str, others: &str, moving: &str) -> Look {
    let text = format!(
        "n{me} h:1@2 myself,master - 0 0 {epoch} connected {mine} {moving}\nn{} h:2@3 master - 0 0 1 connected {others}\n",
        1 - me
    );
    let reply = format!("${}\r\n{text}\r\n", text.len());
    Look::of(reply.as_bytes(), topology, &topology.nodes()[me])
}

fn first(topology: &Topology) -> Leg {
    Leg::first(topology.nodes()[0].clone())
}

/// The nodes of the legs from here on, if nothing moves any more.
fn rest(leg: &mut Leg, last: &Look, topology: &Topology) -> Vec<u16> {
    leg.end(last);
    let mut nodes = Vec::new();
    let mut next = leg.next(topology);
    while let Some(mut leg) = next {
        let me = leg.node.id.0;
        nodes.push(me);
        assert!(nodes.len() < 10);
        let (mine, others) = if me == 0 { ("0-8191", "8192-16383") } else { ("8192-16383", "0-8191") };
        let look = look(topology, usize::from(me), 1, mine, others, "");
        leg.begin(&look);
        leg.go_on(&look);
        leg.end(&look);
        next = leg.next(topology);
    }
    nodes
}

#[test]
fn what_stays_is_done_and_what_moves_is_followed() {
    let topology = halves();
    let (still, other) = ("0-8191", "8192-16383");
    let looks = |looks: &[(u64, &str, &str, &str)]| {
        let mut leg = first(&topology);
        let all: Vec<_> = looks
            .iter()
            .map(|(epoch, mine, others, moving)| look(&topology, 0, *epoch, mine, others, moving))
            .collect();
        leg.begin(&all[0]);
        all.iter().for_each(|look| leg.go_on(look));
        rest(&mut leg, all.last().unwrap(), &topology)
    };
    assert_eq!(looks(&[(1, still, other, "")]), [1]);
    assert_eq!(looks(&[(1, still, other, ""), (1, still, other, "[7->-n1]")]), [1], "the other comes anyhow");
    assert_eq!(looks(&[(1, still, other, ""), (1, "1-8191", "0 8192-16383", "")]), [1]);
    assert_eq!(looks(&[(1, still, other, "[7->-n1]"), (1, still, other, "")]), [0, 1], "it may be back");
    assert_eq!(looks(&[(1, "1-8191", "0 8192-16383", ""), (2, still, other, "")]), [0, 1], "it came");
    assert_eq!(looks(&[(1, still, other, ""), (2, still, other, "")]), [0, 1], "it was away in between");
    let lost = [(1, still, other, ""), (1, still, other, "[7->-n9]")];
    assert_eq!(looks(&lost), [1, 0], "nobody knows to whom it went");
}

#[test]
fn a_slot_that_moved_to_where_the_scan_has_been_is_scanned_there() {
    let topology = halves();
    let all = look(&topology, 0, 1, "0-8191", "8192-16383", "");
    let mut leg = first(&topology);
    leg.begin(&all);
    leg.go_on(&all);
    leg.end(&all);
    let mut second = leg.next(&topology).unwrap();
    assert_eq!(second.node.id, NodeId(1));
    second.begin(&look(&topology, 1, 1, "8192-16383", "0-8191", ""));
    let moves = look(&topology, 1, 1, "8192-16383", "0-8191", "[9000->-n0]");
    second.go_on(&moves);
    second.end(&moves);
    let mut third = second.next(&topology).unwrap();
    assert_eq!(third.node.id, NodeId(0));
    third.begin(&all);
    third.go_on(&all);
    third.end(&all);
    assert!(third.next(&topology).is_none());
}

#[test]
fn a_slot_that_stays_on_its_way_to_nobody_does_not_keep_a_scan_from_its_end() {
    let topology = halves();
    let mut next = Some(first(&topology));
    for legs in 0.. {
        let Some(mut leg) = next else { break };
        assert!(legs <= UNKNOWN + 2);
        let look = match leg.node.id {
            NodeId(0) => look(&topology, 0, 1, "0-8191", "8192-16383", "[7->-n9]"),
            _ => look(&topology, 1, 1, "8192-16383", "0-8191", ""),
        };
        leg.begin(&look);
        leg.go_on(&look);
        leg.end(&look);
        next = leg.next(&topology);
    }
}

#[test]
fn cursors_stay_below_what_clients_can_read_and_a_forgotten_one_begins_anew() {
    let (topology, scans) = (halves(), Scans::default());
    let all = look(&topology, 0, 1, "0-8191", "8192-16383", "");
    for own in [1, (1 << 31) - 1, WIDE - 1, WIDE, u64::MAX] {
        let page = scans.page(0, &topology).unwrap();
        assert_eq!((page.cursor, page.is_anew), (0, false));
        let Behind::Cursor(cursor) = scans.behind(&page, own, &all, &topology) else { panic!() };
        assert!(cursor < if own < 1 << 31 { 1 << 53 } else { 1 << 63 }, "{own}");
        let next = scans.page(cursor, &topology).unwrap();
        assert_eq!((next.cursor, next.is_anew), (own, false));
    }
    let lost = scans.page(5 << BITS, &topology).unwrap();
    assert_eq!((lost.cursor, lost.is_anew), (0, true));
}
