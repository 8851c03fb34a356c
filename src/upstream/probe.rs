//! A connection for a few questions, one after another: of whoever wants to know what the upstream is, and what it allows.

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::connect::{ConnectError, Connected, Identity, Settings, Unread, connect, read_reply};
use super::ours::Own;
use crate::io::Stream;
use crate::resp::encode;
use crate::resp::scanner::{Kind, ReplyScanner};

/// See the [module](self).
pub struct Probe<'s> {
    settings: &'s Settings,
    stream: Stream,
    own: Own,
    scanner: ReplyScanner,
    buf: BytesMut,
}

impl<'s> Probe<'s> {
    /// Opens a connection with this identity.
    pub async fn open(settings: &'s Settings, identity: &Identity) -> Result<Self, ConnectError> {
        let Connected { stream, own, .. } = connect(settings, identity).await?;
        Ok(Self { settings, stream, own, scanner: ReplyScanner::new(), buf: BytesMut::with_capacity(4096) })
    }

    /// What the upstream calls the connection, if it told.
    pub fn id(&self) -> Option<i64> {
        self.own.id()
    }

    /// The reply, raw, and of what kind it is; what comes unasked is passed over. Waits for `connect-timeout`.
    pub async fn ask(&mut self, command: &[&[u8]]) -> Result<(Kind, Vec<u8>), ConnectError> {
        let waits = self.settings.connect_timeout;
        let asked = async {
            let mut out = BytesMut::new();
            encode::command(&mut out, command);
            self.stream.write_all(&out).await?;
            self.stream.flush().await?;
            loop {
                let mut reply = Vec::new();
                match read_reply(&mut self.stream, &mut self.scanner, &mut self.buf, &mut reply).await {
                    Ok(Kind::Push) => {}
                    Ok(kind) => return Ok((kind, reply)),
                    Err(Unread::Closed(why) | Unread::Garbage(why)) => return Err(ConnectError::Io(why)),
                }
            }
        };
        match timeout(waits, asked).await {
            Ok(answer) => answer,
            Err(_) => {
                let waits = humantime::format_duration(waits);
                Err(ConnectError::Io(format!("no answer within {waits} (connect-timeout)").into()))
            }
        }
    }
}
