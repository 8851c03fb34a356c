//! A request with what the command table says of it.

use bytes::Bytes;

use crate::command::{Kind, Row, Table};
use crate::process::Process;
use crate::resp::framer::{Frame, RequestFramer};
use crate::resp::request::Request;

/// See the [module](self).
#[derive(Clone, Copy)]
pub struct Command<'r> {
    /// `None` if nobody knows the command.
    pub row: Option<&'r Row>,
    /// Where it may be carried out.
    pub kind: Kind,
    pub request: &'r Request<'r>,
}

impl Command<'_> {
    pub fn is(&self, name: &str) -> bool {
        self.row.is_some_and(|row| row.name == name)
    }
}

/// Reads a request again that was kept, for what is done with it.
pub fn again(process: &Process, table: &Table, bytes: &Bytes, then: impl FnOnce(Command<'_>)) {
    let mut framer = RequestFramer::new(process.settings.limits);
    if let Ok(Frame::Request(_)) = framer.next(bytes) {
        let request = framer.request(bytes);
        let row = table.lookup(&request);
        let kind = match row {
            None => Kind::Connection,
            Some(row) if row.takes(request.len()) => row.kind(&request),
            Some(_) => Kind::Plain,
        };
        then(Command { row, kind, request: &request });
    }
}
