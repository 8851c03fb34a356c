//! Which of the sentinels' answers counts, when they do not agree.
//!
//! Invariants:
//! - The answer with the newest epoch counts: an epoch is given to one failover, by a majority of the sentinels. A sentinel
//!   that was cut off, or has slept, names an old master with an older epoch.
//! - So what was believed is not given up for an older epoch, though all that know of it are silent for a moment; unless most
//!   of those that ever answered say so: then they were made anew, and count from the beginning.
//! - Sentinels that are listed by nobody any more, and not by the URL, have no say.

use crate::io::Address;
use crate::upstream::{Another, Answer};

/// The most sentinels that are asked.
pub(super) const MOST: usize = 16;

/// A sentinel.
#[derive(Debug)]
pub(super) struct Voter {
    pub address: Address,
    /// The URL names it; else others have told of it.
    pub from_url: bool,
    /// What it has said on its present connection.
    pub answer: Option<Answer>,
    /// It has ever answered.
    pub known: bool,
    /// Why it does not answer.
    pub why: Option<String>,
}

impl Voter {
    pub(super) fn new(address: Address, from_url: bool) -> Self {
        Self { address, from_url, answer: None, known: false, why: None }
    }
}

/// A master, by which epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub address: Address,
    pub epoch: u64,
}

/// Who is to be believed; `None` if nothing is said that counts.
pub(super) fn choose(voters: &[Voter], believed: Option<&Choice>) -> Option<Choice> {
    let of = |answer: &Answer| Some(Choice { address: answer.master.clone()?, epoch: answer.epoch });
    let said: Vec<Choice> = voters.iter().filter_map(|voter| of(voter.answer.as_ref()?)).collect();
    let newest = said.iter().map(|choice| choice.epoch).max()?;
    if believed.is_some_and(|believed| newest < believed.epoch) {
        let ever = voters.iter().filter(|voter| voter.known).count();
        if said.len() * 2 <= ever {
            return None;
        }
    }
    // Of one epoch all say the same, unless some do not tell their epochs: then most of them count, and if there is no
    // most, what was believed.
    let candidates = said.iter().filter(|choice| choice.epoch == newest);
    let votes = |choice: &Choice| {
        let same = said.iter().filter(|other| *other == choice).count();
        (same, believed.is_some_and(|believed| believed.address == choice.address))
    };
    candidates.max_by_key(|choice| votes(choice)).cloned()
}

/// Those who are to be asked besides, by what the answers list; and, by their places, those that nobody lists any more.
pub(super) fn review(voters: &[Voter]) -> (Vec<Address>, Vec<usize>) {
    let answers: Vec<&Answer> = voters.iter().filter_map(|voter| voter.answer.as_ref()).collect();
    if answers.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let listed = |address: &Address| {
        answers.iter().any(|answer| answer.others.iter().any(|other| other.address == *address))
    };
    let gone = |voter: &Voter| !voter.from_url && voter.answer.is_none() && !listed(&voter.address);
    let gone: Vec<_> = voters.iter().enumerate().filter(|(_, voter)| gone(voter)).map(|(i, _)| i).collect();
    // One that the URL names otherwise is there already, by the name that it gives itself.
    let is_there = |other: &Another| {
        voters.iter().any(|voter| voter.address == other.address)
            || answers.iter().any(|answer| answer.id.as_ref() == Some(&other.id))
    };
    let mut new: Vec<Address> = Vec::new();
    for other in answers.iter().flat_map(|answer| &answer.others) {
        if voters.len() - gone.len() + new.len() < MOST && !is_there(other) && !new.contains(&other.address) {
            new.push(other.address.clone());
        }
    }
    (new, gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Address {
        Address::Tcp { host: "h".into(), port }
    }

    fn answer(port: u16, epoch: u64) -> Option<Answer> {
        Some(Answer { master: Some(at(port)), epoch, id: None, others: Vec::new() })
    }

    /// Sentinels that say this; all were known once.
    fn voters(said: &[Option<Answer>]) -> Vec<Voter> {
        let voter = |(i, answer): (usize, &Option<Answer>)| Voter {
            answer: answer.clone(),
            known: true,
            ..Voter::new(at(100 + i as u16), true)
        };
        said.iter().enumerate().map(voter).collect()
    }

    fn choice(port: u16, epoch: u64) -> Option<Choice> {
        Some(Choice { address: at(port), epoch })
    }

    #[test]
    fn the_newest_epoch_counts_however_many_say_otherwise() {
        let old = choice(1, 3);
        assert_eq!(choose(&voters(&[]), None), None);
        assert_eq!(choose(&voters(&[None, answer(1, 0)]), None), choice(1, 0));
        let said = voters(&[answer(1, 3), answer(1, 3), answer(2, 4)]);
        assert_eq!(choose(&said, old.as_ref()), choice(2, 4));
        assert_eq!(choose(&said, None), choice(2, 4));
    }

    #[test]
    fn an_older_epoch_does_not_bring_an_old_master_back_but_new_sentinels_do() {
        let believed = choice(2, 4);
        let cut_off = voters(&[answer(1, 3), None, None]);
        assert_eq!(choose(&cut_off, believed.as_ref()), None);
        let made_anew = voters(&[answer(3, 0), answer(3, 0), None]);
        assert_eq!(choose(&made_anew, believed.as_ref()), choice(3, 0));
        let mut one_ever = voters(&[answer(3, 0), None, None]);
        one_ever[1].known = false;
        one_ever[2].known = false;
        assert_eq!(choose(&one_ever, believed.as_ref()), choice(3, 0), "the others were never reached");
        let mut unknowing = answer(1, 9);
        unknowing.iter_mut().for_each(|answer| answer.master = None);
        assert_eq!(choose(&voters(&[unknowing]), believed.as_ref()), None, "the service is not known there");
    }

    #[test]
    fn without_epochs_most_count_and_else_nothing_changes() {
        let believed = choice(1, 0);
        assert_eq!(
            choose(&voters(&[answer(2, 0), answer(2, 0), answer(1, 0)]), believed.as_ref()),
            choice(2, 0)
        );
        for said in [[answer(2, 0), answer(1, 0)], [answer(1, 0), answer(2, 0)]] {
            assert_eq!(choose(&voters(&said), believed.as_ref()), choice(1, 0));
        }
    }

    #[test]
    fn others_are_learnt_within_a_bound_and_forgotten_when_nobody_lists_them() {
        let listing = |ports: &[u16]| {
            let other = |port: &u16| Another { address: at(*port), id: port.to_string().into_bytes() };
            Some(Answer { others: ports.iter().map(other).collect(), ..answer(1, 1).unwrap() })
        };
        let mut known = voters(&[listing(&[7, 8, 100]), None]);
        assert_eq!(review(&known), (vec![at(7), at(8)], vec![]));
        known[0].answer.as_mut().unwrap().id = Some(b"8".to_vec());
        assert_eq!(review(&known).0, [at(7)], "the other is the one that told of it");
        known.push(Voter::new(at(7), false));
        known.push(Voter::new(at(9), false));
        assert_eq!(review(&known), (vec![], vec![3]));
        known[0].answer = None;
        assert_eq!(review(&known), (vec![], vec![]), "nobody says anything: all stay");
        let many: Vec<u16> = (200..300).collect();
        let known = voters(&[listing(&many)]);
        assert_eq!(review(&known).0.len(), MOST - 1);
    }
}
