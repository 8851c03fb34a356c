//! The runtime of one thread.

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

/// A runtime for this thread alone. Its tasks are woken without the second queue that a `LocalSet` keeps, which
/// took 3 % of a hit's processor time at depth 1.
pub(super) fn runtime() -> std::io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}
