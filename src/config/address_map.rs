//! Nodes of a cluster that announce addresses which lead nowhere from here.

use std::fmt;

use super::address::HostPort;

/// What a node announces, and where it is reached instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    pub announced: HostPort,
    pub reached: HostPort,
}

impl Mapped {
    /// Takes `HOST:PORT=HOST:PORT`.
    pub fn parse(text: &str) -> Result<Mapped, String> {
        let wrong = |why: &str| {
            format!(
                "{text:?} {why}; write what a node announces and where it is reached: HOST:PORT=HOST:PORT"
            )
        };
        let (announced, reached) = text.split_once('=').ok_or_else(|| wrong("has no ="))?;
        let part =
            |part: &str| HostPort::parse(part.trim()).map_err(|why| wrong(&format!("is refused: {why}")));
        let (announced, reached) = (part(announced)?, part(reached)?);
        match reached.port {
            0 => Err(wrong("leads to port 0")),
            _ => Ok(Mapped { announced, reached }),
        }
    }
}

impl fmt::Display for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.announced, self.reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_mapped() {
        let mapped = Mapped::parse("10.0.0.1:6379=127.0.0.1:7001").unwrap();
        assert_eq!(mapped.to_string(), "10.0.0.1:6379=127.0.0.1:7001");
        assert_eq!(Mapped::parse("[::1]:1 = h:2").unwrap().to_string(), "[::1]:1=h:2");
        for (text, why) in [("a:1", "no ="), ("a:1=b", "is refused"), ("a:1=b:0", "port 0")] {
            let error = Mapped::parse(text).unwrap_err();
            assert!(error.contains(why) && error.contains("HOST:PORT=HOST:PORT"), "{error}");
        }
    }
}
