//! A transaction: what is queued in it, from its `MULTI` to its `EXEC`.

use bytes::Bytes;

use super::state::Effect;
use super::write_set::{CacheFence, WriteSet};
use crate::command::Kind;
use crate::process::Process;

/// A transaction, from its `MULTI` on.
#[derive(Default)]
pub struct Transaction {
    pub write_set: WriteSet,
    /// The server has answered the `MULTI`.
    pub answered: bool,
    /// Commands that the server has queued, or has refused and will refuse the transaction for.
    queued: usize,
    /// What they leave on the connection, with their places among them.
    effects: Vec<(usize, Effect)>,
    /// The server refused the `MULTI`, so what came behind it was carried out: fenced until all is answered.
    pub refused: Option<CacheFence>,
    /// In which words.
    pub refusal: Option<Bytes>,
}

impl Transaction {
    /// The place of the next command in the reply to `EXEC`.
    pub fn place(&self) -> usize {
        self.queued
    }

    /// Another command, which leaves this if it is carried out.
    pub fn add(&mut self, kind: Kind, effect: Option<Effect>) {
        // These are answered at once, with an error.
        if matches!(kind, Kind::Multi | Kind::Watch) {
            return;
        }
        self.effects.extend(effect.map(|effect| (self.queued, effect)));
        self.queued += 1;
    }

    pub fn into_parts(self) -> (WriteSet, Vec<(usize, Effect)>) {
        (self.write_set, self.effects)
    }

    /// The reply to `MULTI` has come; those to what came behind it are not yet delivered.
    pub fn answer(&mut self, refusal: Option<Bytes>, process: &Process) {
        self.answered = true;
        if refusal.is_some() {
            self.refused = Some(self.write_set.fence(process, process.now()));
        }
        self.refusal = refusal;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_a_refused_multi_is_fenced_until_all_is_answered() {
        for refused in [true, false] {
            let process = crate::process::fixture::process(1);
            let mut transaction = Transaction::default();
            transaction.answer(refused.then(|| Bytes::from_static(b"-NOPERM\r\n")), &process);
            assert!(transaction.answered && transaction.refused.is_some() == refused);
        }
    }

    #[test]
    fn what_is_queued_has_its_place_and_what_is_answered_at_once_has_none() {
        let mut transaction = Transaction::default();
        assert_eq!(transaction.place(), 0);
        transaction.add(Kind::Multi, Some(Effect::Confirm));
        transaction.add(Kind::Watch, Some(Effect::Confirm));
        assert_eq!(transaction.place(), 0);
        transaction.add(Kind::Plain, None);
        transaction.add(Kind::Plain, Some(Effect::Confirm));
        transaction.write_set.all = true;
        assert_eq!(transaction.place(), 2);
        let (write_set, effects) = transaction.into_parts();
        assert!(write_set.all && matches!(effects[..], [(1, Effect::Confirm)]));
    }
}
