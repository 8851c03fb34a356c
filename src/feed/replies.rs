//! What the feed reads out of the upstream's replies about itself.

use crate::command::ServerCommand;
use crate::resp::decode::Value;

/// How often `SWAPDB` was called, as the reply to `INFO commandstats` says; 0 if it does not.
pub(super) fn calls_of_swapdb(reply: &[u8]) -> u64 {
    const FIELD: &[u8] = b"cmdstat_swapdb:calls=";
    let Some(at) = memchr::memmem::find(reply, FIELD) else { return 0 };
    let digits = reply[at + FIELD.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |calls, digit| calls * 10 + u64::from(digit - b'0'))
}

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
