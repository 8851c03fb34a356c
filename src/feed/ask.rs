//! The feed's requests.

use super::client::{Awaited, FeedClient};
use super::hooks::Hooks;
use super::questions::Question;
use crate::cache::Waiter;
use crate::namespace::Event;
use crate::process::Reports;
use crate::resp::encode;
use crate::upstream::{Link, PING, server_id};

const CLUSTER_STATE: &[u8] = b"*2\r\n$7\r\nCLUSTER\r\n$4\r\nINFO\r\n";
const CLUSTER_NODES: &[u8] = b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nNODES\r\n";

const COMMAND_STATS: &[u8] = b"*2\r\n$4\r\nINFO\r\n$12\r\ncommandstats\r\n";

/// Sends these questions and, if the answer to what stands behind them may arm the feed, a `PING`.
pub(super) fn ask<W: Waiter, H: Hooks>(link: &Link<FeedClient<W, H>>, questions: &[Question], arms: bool) {
    let feed = &link.client().feed;
    let send = |command: &[&[u8]], expect| {
        let _ = link.send(|out| out.with(|tail| encode::command(tail, command)), expect);
    };
    for &question in questions {
        match question {
            Question::ClientId => send(&[b"CLIENT", b"ID"], Awaited::Asked(question)),
            Question::Server => drop(link.send(|out| out.copy(server_id::ASK), Awaited::Asked(question))),
            Question::Calls => send(&[b"INFO", b"commandstats"], Awaited::Calls),
            Question::Slots => ask_slots(link),
            Question::Commands => send(&[b"COMMAND"], Awaited::Asked(question)),
            Question::Tracking(way) => {
                let mut on: Vec<&[u8]> = vec![b"CLIENT", b"TRACKING", b"ON"];
                if way != Reports::Registered {
                    on.push(b"BCAST");
                }
                if way == Reports::Prefixes {
                    let prefixes = feed.prefixes.iter().filter(|prefix| !prefix.is_empty());
                    on.extend(prefixes.flat_map(|prefix| [&b"PREFIX"[..], prefix]));
                }
                send(&on, Awaited::Asked(question));
            }
            Question::Subscribe => {
                let namespaces = feed.hooks.namespaces().iter();
                let channels = namespaces.flat_map(|n| [n.channel(Event::Update), n.channel(Event::Delete)]);
                let command: Vec<&[u8]> = [&b"SUBSCRIBE"[..]].into_iter().chain(channels).collect();
                send(&command, Awaited::Subscribed(command.len() - 1));
            }
        }
    }
    if arms {
        ping(link, true);
    }
}

fn ask_slots<W: Waiter, H: Hooks>(link: &Link<FeedClient<W, H>>) {
    let _ = link.send(|out| out.copy(CLUSTER_STATE), Awaited::ClusterState);
    let _ = link.send(|out| out.copy(CLUSTER_NODES), Awaited::ClusterNodes);
}

/// Asks what is due.
pub(super) fn ask_again<W: Waiter, H: Hooks>(link: &Link<FeedClient<W, H>>) {
    let client = link.client();
    let armed = client.armed.get();
    ask(link, &client.questions.take(armed), !armed);
}

/// Sends a `PING` behind a look at what nothing else reports.
pub(super) fn ping<W: Waiter, H: Hooks>(link: &Link<FeedClient<W, H>>, arms: bool) {
    ping_and_look(link, arms, true);
}

/// Sends a `PING`, which `arms` the feed or not; it `looks` first or not.
pub(super) fn ping_and_look<W: Waiter, H: Hooks>(link: &Link<FeedClient<W, H>>, arms: bool, looks: bool) {
    let client = link.client();
    let sent = client.feed.hooks.now();
    client.pings.sent(sent);
    if looks {
        client.looked.set(sent);
        if client.questions.looks() {
            let _ = link.send(|out| out.copy(COMMAND_STATS), Awaited::Calls);
        }
        if client.feed.hooks.is_of_cluster() && client.questions.ownership.may_ask() {
            ask_slots(link);
        }
    }
    let _ = link.send(|out| out.copy(PING), Awaited::Pong { sent, arms, looks });
}
