//! How long nothing has moved between a client and us.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A client that may have stalled: until when it is waited for, and what had moved before.
#[derive(Default)]
pub struct Stall(Option<(Pin<Box<Sleep>>, u64)>);

impl Stall {
    /// It has not.
    pub fn end(&mut self) {
        if self.0.is_some() {
            self.0 = None;
        }
    }

    /// Whether nothing has `moved` for `timeout`, since this was first asked. If not, the task is woken to ask again.
    ///
    /// A socket counts as writable only when a good part of its buffer is free, so in the end it is asked outright:
    /// `write` says whether the client takes anything now.
    pub fn is_over(
        &mut self,
        timeout: Duration,
        moved: impl Fn() -> u64,
        mut write: impl FnMut() -> bool,
        cx: &mut Context<'_>,
    ) -> bool {
        let (sleep, before) = self.0.get_or_insert_with(|| (Box::pin(tokio::time::sleep(timeout)), moved()));
        if moved() != *before {
            *before = moved();
            sleep.as_mut().reset(Instant::now() + timeout);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if !write() {
                return true;
            }
            *before = moved();
            sleep.as_mut().reset(Instant::now() + timeout);
        }
        false
    }
}
