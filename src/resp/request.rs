//! A complete request, as it lies in the session's read buffer.

/// Where one argument lies, in bytes from the start of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgRange {
    pub start: u32,
    pub len: u32,
}

/// One complete request: its raw bytes (a RESP array of bulk strings) and where its arguments lie.
///
/// There is always at least one argument, the command's name.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    raw: &'a [u8],
    args: &'a [ArgRange],
}

impl<'a> Request<'a> {
    /// Precondition: `args` is not empty and every range lies within `raw`.
    pub fn new(raw: &'a [u8], args: &'a [ArgRange]) -> Self {
        debug_assert!(!args.is_empty());
        Self { raw, args }
    }

    /// The request as it is sent upstream.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Number of arguments, the command's name included.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.args.len()
    }

    /// The `i`th argument; 0 is the command's name. Panics if there is none.
    pub fn arg(&self, i: usize) -> &'a [u8] {
        let ArgRange { start, len } = self.args[i];
        &self.raw[start as usize..start as usize + len as usize]
    }

    /// The `i`th argument, if there is one.
    pub fn get(&self, i: usize) -> Option<&'a [u8]> {
        (i < self.args.len()).then(|| self.arg(i))
    }

    /// The raw bytes after the `i`th argument's line end: the later arguments with their boundaries.
    pub fn raw_after(&self, i: usize) -> &'a [u8] {
        let ArgRange { start, len } = self.args[i];
        &self.raw[start as usize + len as usize + 2..]
    }

    pub fn args(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + '_ {
        (0..self.len()).map(|i| self.arg(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_given_as_they_lie() {
        let raw = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
        let args = [ArgRange { start: 8, len: 3 }, ArgRange { start: 17, len: 1 }];
        let request = Request::new(raw, &args);
        assert_eq!([0, 1, 2].map(|i| request.get(i)), [Some(&b"GET"[..]), Some(b"k"), None]);
        assert!(request.args().eq([&b"GET"[..], b"k"]));
        assert_eq!(request.raw_after(0), b"$1\r\nk\r\n");
    }
}
