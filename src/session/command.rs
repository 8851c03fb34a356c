//! A request with what the command table says of it.

use crate::command::{Kind, Row};
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
