//! Which links are asked whether they live, and what is done with those that give no answer.

use std::time::Duration;

use super::*;
use crate::pending::Standing;
use crate::upstream::{LIVED, Pace};

#[test]
fn the_next_silence_is_that_of_a_link_that_is_awaited_and_not_yet_silent() {
    with_mute(async |router| {
        let pace = Pace { every: UNUSED, patience: UNUSED };
        let [one, other] = [0, 1].map(|db| router.link(&of_db(&router, db)));
        assert_eq!(router.until_silence(pace), None, "nothing is asked");
        one.client().pings.sent(router.process.now());
        let left = router.until_silence(pace).unwrap();
        assert!(left <= UNUSED && left > UNUSED / 2, "{left:?}");
        one.client().mark_unresponsive();
        assert_eq!(router.until_silence(pace), None, "that is known already");
        other.client().pings.sent(router.process.now());
        assert!(router.until_silence(pace).is_some());
    });
}

#[test]
fn a_heartbeat_asks_only_a_link_on_which_an_answer_is_awaited_and_once() {
    with_mute(async |router| {
        let [idle, awaited, down] = [0, 1, 2].map(|db| router.link(&of_db(&router, db)));
        up(&idle).await;
        up(&awaited).await;
        ask(&awaited, false);
        tokio::time::pause();
        assert!(tokio::time::timeout(10 * UNUSED, router.heartbeat()).await.is_err());
        assert_eq!([&idle, &awaited, &down].map(pings), [0, 1, 0]);
        assert!(!idle.client().is_silent() && !awaited.client().is_silent());
    });
}

#[test]
fn that_the_upstream_is_there_again_is_told_once_a_link_has_stood_for_a_while() {
    with_mute(async |router| {
        let link = router.link(&of_db(&router, 0));
        up(&link).await;
        let told = &router.process.metrics.links_down_told;
        tokio::time::pause();
        told.now();
        let beat = async || tokio::time::timeout(LIVED / 2, router.heartbeat()).await.is_err();
        assert!(beat().await && told.over(), "not yet");
        told.now();
        tokio::time::advance(LIVED).await;
        assert!(beat().await && !told.over());
    });
}

#[test]
fn a_replaced_link_is_closed_once_nothing_is_expected_on_it() {
    with_mute(async |router| {
        let keys = [0, 1].map(|db| of_db(&router, db));
        let [idle, awaited] = [&keys[0], &keys[1]].map(|key| router.link(key));
        up(&idle).await;
        up(&awaited).await;
        ask(&awaited, true);
        [&idle, &awaited].iter().for_each(|link| router.leave_link(link.client().id));
        assert!(idle.is_up() && awaited.is_up() && router.replaced.borrow().len() == 2);
        tokio::time::pause();
        assert!(tokio::time::timeout(Duration::from_secs(2), router.heartbeat()).await.is_err());
        assert!(!idle.is_up() && awaited.is_up() && router.replaced.borrow().len() == 1);
    });
}

#[test]
fn a_barrier_asks_a_tracked_link_behind_it_once_and_no_other() {
    with_mute(async |router| {
        let [untracked, tracked] = [0, 1].map(|db| router.link(&of_db(&router, db)));
        up(&untracked).await;
        up(&tracked).await;
        let pass = || {
            [&untracked, &tracked].iter().for_each(|link| router.link_behind_barrier(link.client().id));
            [&untracked, &tracked].map(pings)
        };
        let coverages = router.process.cache.coverages();
        coverages.arm(tracked.client().coverage.borrow().as_ref().unwrap(), None, 5).unwrap();
        assert_eq!(pass(), [0, 0], "there is no barrier");
        router.process.cache.raise_barrier(5, false);
        assert_eq!(pass(), [0, 1]);
        assert_eq!(pass(), [0, 1], "its answer asks for more");
    });
}

#[test]
fn the_server_is_asked_about_a_silent_link_with_a_write_in_flight_and_no_other() {
    // Of the other link: it gives no answer, a write is at its front, it stands, something is in flight on it.
    for (silent, write, stands, in_flight) in [
        (true, true, true, true),
        (false, true, true, true),
        (true, false, true, true),
        (true, true, false, true),
        (true, true, true, false),
    ] {
        with_mute(async |router| {
            let (own, other) =
                (router.own_link_to(&router.process().first_node()), router.link(&of_db(&router, 1)));
            up(&own).await;
            if stands {
                up(&other).await;
            }
            if in_flight {
                ask(&other, write);
            } else {
                other.client().front.is(Some(write), 1);
            }
            if silent {
                other.client().mark_unresponsive();
            }
            router.ask_about_silent();
            let asked = own.awaits(|request| matches!(request.pending, Pending::Standing(_)));
            let wanted = silent && write && stands && in_flight;
            assert_eq!(asked, wanted, "{silent} {write} {stands} {in_flight}");
        });
    }
}

#[test]
fn a_link_cannot_be_asked_about_itself() {
    with_mute(async |router| {
        let own = router.own_link_to(&router.process().first_node());
        up(&own).await;
        ask(&own, true);
        own.client().mark_unresponsive();
        router.ask_about_silent();
        assert_eq!(own.in_flight(), 1);
    });
}

#[test]
fn a_link_is_given_up_when_the_server_has_said_twice_that_it_does_not_keep_it_waiting() {
    with_mute(async |router| {
        let [one, other] = [0, 1].map(|db| router.link(&of_db(&router, db)));
        for link in [&one, &other] {
            up(link).await;
        }
        let says = |standing| router.stands(one.client().id, standing);
        says(Standing::Unheard);
        says(Standing::Kept);
        says(Standing::Unheard);
        router.stands(other.client().id, Standing::Unheard);
        assert!(one.is_up() && other.is_up());
        says(Standing::Unheard);
        assert!(!one.is_up() && other.is_up());
        assert_eq!(router.process.metrics.dark_links.get(), 1);
    });
}

#[test]
fn a_silent_link_is_given_up_or_replaced_only_if_the_upstream_lives_and_is_replaced_once() {
    for (proven, lives) in [(99, false), (100, false), (101, true)] {
        for writes in [true, false] {
            with_mute(async |router| {
                let key = of_db(&router, 0);
                let link = router.link(&key);
                up(&link).await;
                ask(&link, writes);
                link.client().pings.sent(100);
                let node = router.process.first_node();
                router.process.cache.coverages().arm(&node.feed, None, proven).unwrap();
                // Another identity's was replaced before.
                let another = router.link(&of_db(&router, 1));
                up(&another).await;
                router.leave_link(another.client().id);
                let ident = router.process.idents.number(&key.ident);
                let leave = |link: &Link, sure| {
                    router.leave_silent((node.id, ident), link, Duration::from_secs(sure))
                };
                leave(&link, 0);
                assert!(link.is_up(), "this process may have been held up");
                leave(&link, 60);
                assert!(link.is_up(), "it may be still");
                leave(&link, 0);
                assert_eq!(link.is_up(), !lives || writes, "{proven} {writes}");
                let next = router.link(&key);
                assert_eq!(!next.is(&link), lives && writes, "{proven} {writes}");
                up(&next).await;
                // While the first is open still, there is no third.
                leave(&next, 0);
                assert!(!(lives && writes) || router.link(&key).is(&next));
            });
        }
    }
}
