//! The words between a nearside and the one that takes over, and the descriptors that go with them.
//!
//! Invariants: what is received is at most [`passed::MOST`](super::super::passed::MOST) descriptors and one short line, which
//! says of each what it is for; anything else is an error, and the descriptors are closed.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use socket2::Socket;
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::super::passed::{MOST, Offered, PassedSocket, Purpose};

/// How the line begins: what it is, and the version of these words.
const GREETING: &str = "nearside-takeover 1";

/// The line is shorter.
const LINE: usize = 8192;

/// The new one serves as soon as it may.
pub(super) const READY: u8 = b'R';

/// The old one lets nobody in any more.
pub(super) const YOURS: u8 = b'Y';

/// The old one does not wait any more, and goes on.
pub(super) const LATE: u8 = b'L';

/// The new one lets clients in.
pub(super) const OPEN: u8 = b'O';

const PURPOSES: [(&str, Purpose); 4] = [
    ("clients", Purpose::Clients),
    ("tls", Purpose::Secure),
    ("admin", Purpose::Admin),
    ("takeover", Purpose::Takeover),
];

/// Says whether the one that passes them is ready itself, and passes these.
pub(super) async fn send(stream: &UnixStream, is_ready: bool, sockets: &[Offered]) -> io::Result<()> {
    if sockets.len() > MOST {
        return Err(io::Error::other(format!(
            "{} sockets are too many; {MOST} can be passed",
            sockets.len()
        )));
    }
    let mut line = format!("{GREETING} {}", if is_ready { "ready" } else { "unready" });
    for socket in sockets {
        let owner = if socket.is_activated { "systemd:" } else { "" };
        let word =
            PURPOSES.iter().find(|(_, purpose)| *purpose == socket.purpose).map_or("", |(word, _)| word);
        line += &format!(" {owner}{word}");
    }
    line.push('\n');
    let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(|socket| socket.socket.as_fd()).collect();
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
                return Err(io::Error::other("there is no room for the descriptors"));
            }
            let parts = [IoSlice::new(line.as_bytes())];
            Ok(sendmsg(stream, &parts, &mut control, SendFlags::NOSIGNAL)?)
        })
        .await?;
    if sent == line.len() { Ok(()) } else { Err(io::Error::other("it was cut off")) }
}

/// What [`send`] has said.
pub(super) async fn receive(stream: &UnixStream) -> io::Result<(bool, Vec<PassedSocket>)> {
    let mut line = Vec::new();
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    while line.last() != Some(&b'\n') {
        let (mut bytes, mut came) = ([0; LINE], Vec::new());
        let len = stream
            .async_io(Interest::READABLE, || {
                let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let parts = &mut [IoSliceMut::new(&mut bytes)];
                let received = recvmsg(stream, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(all) = message {
                        came.extend(all);
                    }
                }
                Ok(received.bytes)
            })
            .await?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(&bytes[..len]);
        descriptors.extend(came);
        if line.len() >= LINE || descriptors.len() > MOST {
            return Err(io::Error::other("it says too much"));
        }
    }
    understood(&line, descriptors)
}

fn understood(line: &[u8], descriptors: Vec<OwnedFd>) -> io::Result<(bool, Vec<PassedSocket>)> {
    let other = || io::Error::other("it speaks otherwise: it is another version of nearside, or none");
    let line = std::str::from_utf8(line).map_err(|_| other())?;
    let mut words = line.strip_prefix(GREETING).ok_or_else(other)?.split_whitespace();
    let is_ready = words.next() == Some("ready");
    let words: Vec<_> = words.collect();
    if words.len() != descriptors.len() {
        return Err(io::Error::other(
            "not all sockets have come: are there too few file descriptors (ulimit -n)?",
        ));
    }
    let socket = |(word, descriptor): (&str, OwnedFd)| {
        let (is_activated, word) = word.strip_prefix("systemd:").map_or((false, word), |word| (true, word));
        let purpose = PURPOSES.iter().find(|(known, _)| *known == word).map(|(_, purpose)| *purpose);
        PassedSocket::of(Socket::from(descriptor), purpose.ok_or_else(other)?, is_activated)
    };
    let sockets = words.into_iter().zip(descriptors).map(socket).collect::<io::Result<_>>()?;
    Ok((is_ready, sockets))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::rc::Rc;

    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn sockets_arrive_with_what_they_are_for() {
        let purposes = [Purpose::Clients, Purpose::Secure, Purpose::Admin, Purpose::Takeover];
        let all: Vec<_> = purposes.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let offered = |(i, purpose): (usize, &Purpose)| {
            let socket = Rc::new(all[i].try_clone().unwrap());
            Offered { socket, purpose: *purpose, is_activated: i == 1 }
        };
        let offered: Vec<_> = purposes.iter().enumerate().map(offered).collect();
        for is_ready in [true, false] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            send(&ours, is_ready, &offered).await.unwrap();
            let (told, sockets) = receive(&theirs).await.unwrap();
            assert_eq!(told, is_ready);
            assert_eq!(sockets.iter().map(|socket| socket.purpose).collect::<Vec<_>>(), purposes);
            for (i, socket) in sockets.iter().enumerate() {
                assert_eq!(socket.is_activated, i == 1);
                let at = socket.socket.local_addr().unwrap().as_socket();
                assert_eq!(at, Some(all[i].local_addr().unwrap()));
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_understood_is_an_error() {
        for said in
            ["HTTP/1.1 200 OK\n", "nearside-takeover 2 ready\n", "nearside-takeover 1 ready clients\n", "cut"]
        {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(said.as_bytes()).await.unwrap();
            drop(ours);
            assert!(receive(&theirs).await.is_err(), "{said}");
        }
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&vec![b'x'; LINE]).await.unwrap();
        assert!(receive(&theirs).await.is_err());
    }
}
