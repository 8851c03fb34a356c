//! Which of a cluster's nodes a command concerns, and what their replies come to: what Redis calls request and response
//! policies, in the tips of `COMMAND` since Redis 7.
//!
//! Invariants: what a row pins is not changed by what the server says. Only what goes to a cluster looks at any of this.

/// To whom a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// The node of its keys; anybody, if it has none.
    Default,
    /// Likewise, whatever the server says.
    One,
    /// All nodes. Of replicas nearside knows nothing, so to the masters here.
    All,
    /// It may be cut by the hash slots of its keys.
    MultiShard,
    /// It needs a way of its own.
    Special,
}

/// What the replies to the parts come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// The elements of all; of keys, in the order of the keys.
    Default,
    OneSucceeded,
    AllSucceeded,
    LogicalAnd,
    LogicalOr,
    Min,
    Max,
    Sum,
    /// What that is, only its command tells.
    Special,
}

/// Both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub asks: Asks,
    pub gives: Gives,
}

impl Policy {
    pub(super) const DEFAULT: Self = Self { asks: Asks::Default, gives: Gives::Default };

    /// This, corrected by the server's tips.
    pub(super) fn corrected(self, tips: &[String]) -> Self {
        if self.asks == Asks::One {
            return self;
        }
        let tip = |name: &str| {
            tips.iter().find_map(|tip| {
                let (known, value) = tip.split_once(':')?;
                known.eq_ignore_ascii_case(name).then(|| value.to_ascii_lowercase())
            })
        };
        let asks = match tip("request_policy").as_deref() {
            Some("all_nodes" | "all_shards") => Asks::All,
            Some("multi_shard") => Asks::MultiShard,
            Some("special") => Asks::Special,
            _ => self.asks,
        };
        let gives = match tip("response_policy").as_deref() {
            Some("one_succeeded") => Gives::OneSucceeded,
            Some("all_succeeded") => Gives::AllSucceeded,
            Some("agg_logical_and") => Gives::LogicalAnd,
            Some("agg_logical_or") => Gives::LogicalOr,
            Some("agg_min") => Gives::Min,
            Some("agg_max") => Gives::Max,
            Some("agg_sum") => Gives::Sum,
            Some("special") => Gives::Special,
            _ => self.gives,
        };
        Self { asks, gives }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{ServerCommand, Table};

    fn server(name: &str, tips: &[&str]) -> ServerCommand {
        let tips = tips.iter().map(ToString::to_string).collect();
        ServerCommand { name: name.into(), arity: -1, tips, ..ServerCommand::default() }
    }

    #[test]
    fn the_server_s_tips_lie_over_the_built_in_policies_but_for_those_that_are_pinned() {
        let table = Table::builtin().overlay(&[
            server("dbsize", &[]),
            server("echo", &["REQUEST_POLICY:ALL_NODES", "response_policy:agg_max"]),
            server("ping", &["request_policy:all_shards", "response_policy:all_succeeded"]),
            server("msetnx", &["request_policy:multi_shard", "response_policy:agg_min"]),
            server("mod.all", &["request_policy:all_shards", "response_policy:agg_logical_or"]),
            server("get", &["request_policy:something_new", "nonsense"]),
        ]);
        let policy = |name: &str| table.find(name.as_bytes()).map(|row| (row.policy.asks, row.policy.gives));
        for (name, asks, gives) in [
            ("dbsize", Asks::All, Gives::Sum),
            ("keys", Asks::All, Gives::Default),
            ("echo", Asks::All, Gives::Max),
            ("ping", Asks::One, Gives::Default),
            ("msetnx", Asks::One, Gives::Default),
            ("mod.all", Asks::All, Gives::LogicalOr),
            ("get", Asks::Default, Gives::Default),
        ] {
            assert_eq!(policy(name), Some((asks, gives)), "{name}");
        }
    }
}
