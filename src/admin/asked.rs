//! One request, and what it is about.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::Request;
use hyper::body::Incoming;

use super::door::Door;
use super::live::Live;
use super::reload::Reload;
use crate::process::Process;

/// What all requests are about.
pub struct Admin {
    pub process: Arc<Process>,
    /// Whether nearside is no more for new clients.
    pub draining: Arc<AtomicBool>,
    pub door: Door,
    pub reload: Reload,
}

/// A request that was let in.
pub(super) struct Asked {
    pub(super) admin: Rc<Admin>,
    pub(super) live: Arc<Live>,
    pub(super) request: Request<Incoming>,
}

impl Asked {
    pub(super) fn process(&self) -> &Arc<Process> {
        &self.admin.process
    }

    pub(super) fn is_draining(&self) -> bool {
        self.admin.draining.load(Ordering::Relaxed)
    }
}
