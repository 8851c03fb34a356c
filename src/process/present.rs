//! A client's place among those that others know of.

use std::sync::Arc;

use super::clients::Client;
use super::shared::Process;

/// A client while its session is served: known to others from its first request to its end.
pub struct Present {
    process: Arc<Process>,
    client: Arc<Client>,
}

impl Present {
    pub fn new(process: Arc<Process>, client: Arc<Client>) -> Self {
        Self { process, client }
    }
}

impl std::ops::Deref for Present {
    type Target = Arc<Client>;

    fn deref(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.process.clients.leave(self.client.id);
        self.client.calls().into_iter().for_each(|call| call.answer(None));
    }
}
