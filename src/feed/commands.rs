//! The upstream's own account of its commands.

use crate::command::ServerCommand;
use crate::resp::decode::Value;

/// Reads a reply to `COMMAND`. Servers before 7.0 give fewer fields.
pub(super) fn commands(reply: &Value) -> Vec<ServerCommand> {
    let Some(all) = reply.as_array() else { return Vec::new() };
    all.iter().filter_map(command).collect()
}

fn command(value: &Value) -> Option<ServerCommand> {
    let fields = value.as_array()?;
    let int = |i: usize| fields.get(i).and_then(Value::as_int);
    let words = |i: usize| -> Vec<String> {
        let words = fields.get(i).and_then(Value::as_array).unwrap_or_default();
        words.iter().filter_map(Value::as_bytes).map(|w| String::from_utf8_lossy(w).into_owned()).collect()
    };
    Some(ServerCommand {
        name: String::from_utf8_lossy(fields.first()?.as_bytes()?).into_owned(),
        arity: int(1)?,
        flags: words(2),
        first_key: int(3)?,
        last_key: int(4)?,
        step: int(5)?,
        tips: words(7),
        subcommands: fields.get(9).map(commands).unwrap_or_default(),
    })
}
