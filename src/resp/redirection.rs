//! Errors by which a node of a cluster says that it has not executed a request, and where or when that would be.
//!
//! The words are those of `clusterRedirectClient` in cluster.c, and of `processCommand` in server.c.

/// Where a node is, as another names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// Without brackets; `None` if it is that of the node that says so.
    pub host: Option<Box<str>>,
    pub port: u16,
}

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirection {
    /// The hash slot is another node's.
    Moved {
        slot: u16,
        to: Whereabouts,
    },
    /// The key is at another node already, or will be.
    Ask {
        slot: u16,
        to: Whereabouts,
    },
    /// Some of the keys are there already, and some are not.
    TryAgain,
    ClusterDown,
    Loading,
    ReadOnly,
    MasterDown,
}

/// What a server says of itself, to the word: a script cannot have said so by chance.
const VERBATIM: [&[u8]; 8] = [
    b"-TRYAGAIN Multiple keys request during rehashing of slot",
    b"-CLUSTERDOWN Hash slot not served",
    b"-CLUSTERDOWN The cluster is down",
    b"-CLUSTERDOWN The cluster is down and only accepts read commands",
    b"-LOADING Redis is loading the dataset in memory",
    b"-LOADING Valkey is loading the dataset in memory",
    b"-READONLY You can't write against a read only replica.",
    b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
];

impl Redirection {
    /// How many there are.
    pub const KINDS: usize = 7;

    /// What this error says, if it is one of these.
    pub fn of(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line.strip_prefix(b"-")?).ok()?;
        let mut words = text.trim_end_matches(['\r', '\n']).split(' ');
        match words.next()? {
            "MOVED" => whither(words).map(|(slot, to)| Self::Moved { slot, to }),
            "ASK" => whither(words).map(|(slot, to)| Self::Ask { slot, to }),
            "TRYAGAIN" => Some(Self::TryAgain),
            "CLUSTERDOWN" => Some(Self::ClusterDown),
            "LOADING" => Some(Self::Loading),
            "READONLY" => Some(Self::ReadOnly),
            "MASTERDOWN" => Some(Self::MasterDown),
            _ => None,
        }
    }

    /// Whether this line is in the server's own words. Those of a script may come behind what it has written.
    pub fn is_verbatim(&self, line: &[u8]) -> bool {
        let line = line.strip_suffix(b"\r\n").unwrap_or(line);
        matches!(self, Self::Moved { .. } | Self::Ask { .. }) || VERBATIM.contains(&line)
    }

    /// Its number, below [`KINDS`](Self::KINDS).
    pub fn number(&self) -> usize {
        match self {
            Self::Moved { .. } => 0,
            Self::Ask { .. } => 1,
            Self::TryAgain => 2,
            Self::ClusterDown => 3,
            Self::Loading => 4,
            Self::ReadOnly => 5,
            Self::MasterDown => 6,
        }
    }

    /// The hash slot that it speaks of, if it names one.
    pub fn slot(&self) -> Option<u16> {
        match self {
            Self::Moved { slot, .. } | Self::Ask { slot, .. } => Some(*slot),
            _ => None,
        }
    }
}

/// A hash slot, and a host and a port: nothing before them, and nothing behind.
fn whither<'t>(mut words: impl Iterator<Item = &'t str>) -> Option<(u16, Whereabouts)> {
    let slot = words.next()?.parse().ok().filter(|slot| usize::from(*slot) < super::SLOTS)?;
    let (host, port) = words.next()?.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // Which is not known to it: `cluster-preferred-endpoint-type unknown-endpoint`.
    let host = Some(host).filter(|host| !host.is_empty() && *host != "?").map(Box::from);
    words.next().is_none().then_some((slot, Whereabouts { host, port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(line: &str) -> Option<(u16, Option<String>, u16)> {
        match Redirection::of(line.as_bytes())? {
            Redirection::Moved { slot, to } => Some((slot, to.host.map(String::from), to.port)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn where_a_slot_is_is_read_in_every_form() {
        let at = |slot, host: &str, port| Some((slot, Some(host.to_owned()), port));
        assert_eq!(moved("-MOVED 3999 127.0.0.1:6381\r\n"), at(3999, "127.0.0.1", 6381));
        assert_eq!(moved("-MOVED 0 ::1:6381\r\n"), at(0, "::1", 6381));
        assert_eq!(moved("-MOVED 0 [::1]:6381\r\n"), at(0, "::1", 6381));
        assert_eq!(moved("-MOVED 16383 a.example:1\r\n"), at(16383, "a.example", 1));
        assert_eq!(moved("-MOVED 1 :6381\r\n"), Some((1, None, 6381)));
        assert_eq!(moved("-MOVED 1 ?:6381\r\n"), Some((1, None, 6381)));
        for wrong in [
            "-MOVED\r\n",
            "-MOVED 1\r\n",
            "-MOVED 16384 a:1\r\n",
            "-MOVED -1 a:1\r\n",
            "-MOVED 1 a\r\n",
            "-MOVED 1 a:0\r\n",
            "-MOVED 1 a:65536\r\n",
            "-MOVED 1 a:1 more\r\n",
            "-MOVEDX 1 a:1\r\n",
            "+MOVED 1 a:1\r\n",
        ] {
            assert_eq!(moved(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn each_is_told_by_its_code_and_nothing_else_is_one() {
        let lines = [
            "-MOVED 7 a:1\r\n",
            "-ASK 7 a:1\r\n",
            "-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
            "-CLUSTERDOWN Hash slot not served\r\n",
            "-LOADING Redis is loading the dataset in memory\r\n",
            "-READONLY You can't write against a read only replica.\r\n",
            "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
        ];
        assert_eq!(lines.len(), Redirection::KINDS);
        for (number, line) in lines.into_iter().enumerate() {
            let said = Redirection::of(line.as_bytes()).unwrap();
            assert_eq!((said.number(), said.slot()), (number, (number < 2).then_some(7)));
            assert!(said.is_verbatim(line.as_bytes()), "{line}");
        }
        for line in ["-ERR MOVED 1 a:1\r\n", "-LOADINGS\r\n", "+LOADING\r\n", "$-1\r\n", "-\r\n"] {
            assert_eq!(Redirection::of(line.as_bytes()), None, "{line}");
        }
        assert_eq!(Redirection::of(b"-\xff"), None);
        let of_a_script = b"-TRYAGAIN later\r\n";
        assert!(!Redirection::of(of_a_script).unwrap().is_verbatim(of_a_script));
    }
}
