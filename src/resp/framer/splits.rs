//! The property that the unit tests and the fuzzer share: how a request is cut into packets changes nothing.
//!
//! The fuzz target includes this file, hence `super::`.

use super::{Frame, Limits, ProtocolError, Request, RequestFramer};

/// What the framer made of some bytes.
#[derive(Debug, Default, PartialEq)]
pub struct Framed {
    /// Bytes used, and the arguments of the request, if there was one.
    pub frames: Vec<(usize, Option<Vec<Vec<u8>>>)>,
    pub error: Option<ProtocolError>,
}

/// Feeds `bytes`, of which `more()` arrive at a time.
pub fn framed(limits: Limits, bytes: &[u8], mut more: impl FnMut() -> usize) -> Framed {
    let mut framer = RequestFramer::new(limits);
    let mut framed = Framed::default();
    let (mut start, mut came, mut needed) = (0, 0, 0);
    loop {
        let buf = &bytes[start..came];
        let (used, request) = match framer.next(buf) {
            Ok(Frame::Incomplete { need }) => {
                assert!(need > buf.len(), "asks for {need} and has {}", buf.len());
                needed = needed.max(need);
                if came == bytes.len() {
                    return framed;
                }
                came = (came + more().max(1)).min(bytes.len());
                continue;
            }
            Ok(Frame::Skip(used)) => (used, None),
            Ok(Frame::Request(used)) => {
                let request = framer.request(buf);
                assert_eq!(request.raw(), &buf[..used]);
                let mut fresh = RequestFramer::new(limits);
                assert_eq!(fresh.next(buf), Ok(Frame::Request(used)), "what came before it counts");
                assert!(fresh.request(buf).args().eq(request.args()), "what came before it counts");
                if framer.repeats() {
                    let before = framed.frames.last().and_then(|(_, args)| args.as_ref()).unwrap();
                    assert_eq!((request.len(), before.len()), (2, 2));
                    assert_eq!(request.arg(0), before[0]);
                }
                (used, Some(request))
            }
            Ok(Frame::Inline(used)) => (used, Some(framer.request(buf))),
            Err(error) => {
                framed.error = Some(error);
                return framed;
            }
        };
        assert!(used > 0 && used <= buf.len() && used >= needed);
        framed.frames.push((used, request.map(args)));
        start += used;
        needed = 0;
    }
}

/// Copies the arguments; they say all, as the request must be their canonical form.
fn args(request: Request) -> Vec<Vec<u8>> {
    let args: Vec<_> = request.args().map(<[u8]>::to_vec).collect();
    let mut canonical = format!("*{}\r\n", args.len()).into_bytes();
    for arg in &args {
        canonical.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        canonical.extend_from_slice(arg);
        canonical.extend_from_slice(b"\r\n");
    }
    assert_eq!(request.raw(), canonical, "what is passed on is not canonical");
    args
}

/// Panics if `bytes` are framed differently whole, byte by byte, and in pieces drawn from `seed`.
pub fn same_however_cut(limits: Limits, bytes: &[u8], mut seed: u64) -> Framed {
    let whole = framed(limits, bytes, || usize::MAX >> 1);
    assert_eq!(framed(limits, bytes, || 1), whole);
    let pieces = framed(limits, bytes, || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + (seed >> 60) as usize
    });
    assert_eq!(pieces, whole);
    whole
}
