//! A flush where the upstream lets nearside run no script: the comparison is made here, under a `WATCH`.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::dirty::Verdict;
use super::flushing::{Flush, base_of};
use super::op::{sha1, unix_ms};
use super::replies::Replies;
use crate::resp::encode;

/// Makes the flush. Gives what became of it, and what the upstream said if it refused.
pub(super) async fn flush(
    mut stream: UnixStream,
    flush: &Flush,
    may_be_done: &(dyn Fn(&[u8]) -> bool + Sync),
) -> (Verdict, Bytes) {
    match try_flush(&mut stream, flush, may_be_done).await {
        Ok(ended) => ended,
        Err(error) => (Verdict::Unknown, error.to_string().into()),
    }
}

async fn try_flush(
    stream: &mut UnixStream,
    flush: &Flush,
    may_be_done: &(dyn Fn(&[u8]) -> bool + Sync),
) -> io::Result<(Verdict, Bytes)> {
    let [watched, value] = ask(stream, [&[&b"WATCH"[..], &flush.key], &[b"GET", &flush.key]]).await?;
    let base = base_of(&value, b":-1\r\n").filter(|_| !watched.starts_with(b"-"));
    let Some(base) = base else {
        return Ok((Verdict::Refused, if watched.starts_with(b"-") { watched } else { value }));
    };
    let (now, stands) = (unix_ms(), base.stands.word());
    let allowed = flush.bases.iter().flat_map(|base| base.words(now)).any(|word| word == stands);
    let ours = flush.op.value().map_or("a".to_owned(), |value| format!("v{}", sha1(value)));
    if !allowed {
        let verdict = if stands == ours { Verdict::Done } else { Verdict::Conflict(stands.into()) };
        return Ok((verdict, Bytes::new()));
    }
    let ends = flush.op.ends();
    let write: &[&[u8]] = match flush.op.value() {
        Some(value) if !ends.is_empty() => &[b"SET", &flush.key, value, b"PXAT", ends.as_bytes()],
        Some(value) => &[b"SET", &flush.key, value],
        None => &[b"DEL", &flush.key],
    };
    let [_, queued, done] = ask(stream, [&[b"MULTI"], write, &[b"EXEC"]]).await?;
    Ok(match &done[..] {
        // Somebody has written there meanwhile: it is looked at anew.
        [b'*', b'-', ..] | [b'_', ..] => {
            (Verdict::Refused, "another has written there at the same time".into())
        }
        [b'*', ..] if !done.contains(&b'-') => (Verdict::Done, Bytes::new()),
        said if may_be_done(said) => (Verdict::Unknown, done),
        _ => (Verdict::Refused, if queued.starts_with(b"-") { queued } else { done }),
    })
}

async fn ask<const N: usize>(stream: &mut UnixStream, requests: [&[&[u8]]; N]) -> io::Result<[Bytes; N]> {
    let mut out = BytesMut::new();
    requests.iter().for_each(|request| encode::command(&mut out, request));
    stream.write_all(&out).await?;
    let (mut all, mut replies) = ([const { Bytes::new() }; N], Replies::default());
    for reply in &mut all {
        *reply = loop {
            match replies.next()? {
                Some(reply) => break reply,
                None => replies.read(stream).await?,
            }
        };
    }
    Ok(all)
}
