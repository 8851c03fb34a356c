//! Links whose oldest request is stuck, and the spare ones.

use tokio::time::Instant;

use super::*;

/// So late that what is at the front for so long is stuck.
const LATE: u64 = u64::MAX / 2;

/// Whether those who wait for what is behind its front were let go at that time.
fn was_let_go(link: &Link) -> bool {
    !link.client().front.lets_go(LATE)
}

#[test]
fn those_behind_a_stuck_front_are_let_go_unless_all_of_their_links_are_stuck() {
    with_mute(async |router| {
        let [alone, other] = [0, 1].map(|db| router.link(&of_db(&router, db)));
        for link in [&alone, &other] {
            up(link).await;
        }
        ask(&alone, false);
        router.let_go_of_stuck(LATE);
        assert!(was_let_go(&alone) && !was_let_go(&other), "the other is not stuck");
    });
    with_mute(async |router| {
        let key = of_db(&router, 0);
        let first = router.link(&key);
        up(&first).await;
        ask(&first, false);
        assert!(router.route(&key, false, LATE).is_none(), "a spare one is made");
        let spare = router.spares.borrow()[0].link.clone();
        up(&spare).await;
        ask(&spare, false);
        router.let_go_of_stuck(LATE);
        assert!(!was_let_go(&first) && !was_let_go(&spare), "there is no other way to go");
    });
}

#[test]
fn a_spare_link_stays_while_it_is_used_and_its_first_is_there() {
    with_mute(async |router| {
        let keys = [0, 1, 2].map(|db| of_db(&router, db));
        let mut spares = Vec::new();
        for key in &keys {
            let first = router.link(key);
            up(&first).await;
            ask(&first, false);
            assert!(router.route(key, false, LATE).is_none());
            let spare = router.spares.borrow().last().unwrap().link.clone();
            up(&spare).await;
            spares.push(spare);
        }
        let stand = || spares.iter().map(Link::is_up).collect::<Vec<_>>();
        tokio::time::pause();
        // The first of another identity is no first of this one.
        router
            .links
            .borrow_mut()
            .retain(|known| !known.is(router.process.idents.number(&keys[2].ident), &keys[2]));
        router.drop_unused();
        assert_eq!(stand(), [true, true, false], "it is alone");
        ask(&spares[1], false);
        router.spares.borrow().iter().for_each(|spare| spare.used.set(Instant::now()));
        tokio::time::advance(UNUSED).await;
        router.drop_unused();
        assert_eq!(stand(), [true, true, false], "not before it is over");
        tokio::time::advance(Duration::from_millis(1)).await;
        router.drop_unused();
        assert_eq!(stand(), [false, true, false], "one in use is not unused");
        assert_eq!(router.spares.borrow().len(), 1);
    });
}

#[test]
fn a_spare_link_that_is_alone_stays_until_it_is_answered() {
    with_mute(async |router| {
        let key = of_db(&router, 1);
        let first = router.link(&key);
        up(&first).await;
        ask(&first, false);
        assert!(router.route(&key, false, LATE).is_none());
        let spare = router.spares.borrow()[0].link.clone();
        up(&spare).await;
        ask(&spare, false);
        router.links.borrow_mut().clear();
        router.drop_unused();
        assert!(spare.is_up() && router.spares.borrow().len() == 1);
    });
}
