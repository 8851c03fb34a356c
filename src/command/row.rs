//! One command's row, and the words in which it is said.

use super::keys::{KeySet, KeyUse, Keys, Part};
use super::policy::Policy;
use super::streams;
use super::tells::Tells;
use super::word::is;
use crate::resp::request::Request;
use std::borrow::Cow;

/// What a command does to the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Touches no key: PING, INFO, PUBLISH, MULTI.
    None,
    Read,
    /// Writes, or may. A script is a write.
    Write,
}

/// Where a command is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Upstream, on the shared link.
    Plain,
    /// By nearside itself.
    Local(Local),
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    /// May wait at the server as long as it likes, hold up its connection or end it, or tells of it; it leaves
    /// no state there.
    Blocking,
    /// Taken by a server that is busy with a script: it must not stand behind that, so it goes on a connection of its
    /// own. It leaves no state there.
    Aside,
    /// (P|S)SUBSCRIBE
    Subscribe,
    /// (P|S)UNSUBSCRIBE
    Unsubscribe,
    Monitor,
    /// What the server says from then on is no sequence of replies.
    Tunnel,
    /// It leaves state on the connection, or depends on such state.
    Connection,
}

impl Kind {
    /// Whether nothing of such a request is ever passed on as it came.
    pub fn is_answered_here(self) -> bool {
        use Local::{ClientGetName, ClientId, ClientSetName, Http, Nearside, Quit, Reset};
        let here = [ClientId, ClientGetName, ClientSetName, Http, Nearside, Quit, Reset];
        matches!(self, Kind::Local(local) if here.contains(&local))
    }
}

/// The commands that nearside answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    Hello,
    Auth,
    Select,
    Quit,
    /// `POST` and `Host:`, which no Redis client says: HTTP.
    Http,
    Reset,
    ClientId,
    ClientInfo,
    ClientList,
    ClientKill,
    ClientGetName,
    ClientSetName,
    ClientSetInfo,
    ClientReply,
    Nearside,
}

impl Local {
    /// Whether it asks the upstream about its clients, and leaves nothing behind.
    pub fn is_about_clients(self) -> bool {
        matches!(self, Self::ClientInfo | Self::ClientList | Self::ClientKill)
    }
}

/// How the reply to a request may be cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheRule {
    Never,
    /// Argument 1 is the only key, and the reply depends on nothing but the key's value and the arguments.
    Single,
    /// Arguments from 1 on are keys, each with the reply that GET would give, or nil for another type.
    Mget,
    /// It could be, and is not to be.
    Unwanted,
}

/// What a row says of its replies; [`Row::cache`] turns it into the rule for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cached {
    Never,
    Single,
    /// Single, if there is one key and nothing else: EXISTS.
    OneKey,
    Mget,
    Unwanted,
}

/// Which fields of a hash a reply tells of. On a server where fields have times to live of their own, that
/// bounds how long it is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    /// It is not of a hash, or fields live as long as their hash there.
    None,
    /// Those that stand behind the key: all of the request's arguments from 2 on.
    Named,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KindRule {
    Always(Kind),
    /// XREAD, XREADGROUP: Blocking with the BLOCK option, else Plain.
    Streams,
    /// Blocking if the word BLOCK stands anywhere after the key, else Plain.
    BlockWord,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Command,
    /// Has subcommands with rows of their own.
    Container,
    Subcommand,
}

/// What the table knows of one command or subcommand.
#[derive(Clone, Debug)]
pub struct Row {
    /// Unique in its table. A built-in row keeps its id in every table that is laid over the built-in one.
    pub id: u16,
    /// Lower-case; a subcommand's is `client|setname`.
    pub name: Cow<'static, str>,
    /// As Redis counts: the name included, negative for "at least".
    pub arity: i32,
    pub access: Access,
    pub(super) kind: KindRule,
    pub(super) cached: Cached,
    /// Whose times bound a cached reply, besides the key's.
    pub fields: Fields,
    pub(super) tells: Tells,
    pub(super) keys: Keys,
    pub(super) shape: Shape,
    /// Which nodes of a cluster it concerns.
    pub policy: Policy,
}

impl Row {
    /// Where this request is to be carried out.
    #[inline(always)]
    pub fn kind(&self, req: &Request<'_>) -> Kind {
        match self.kind {
            KindRule::Always(kind) => kind,
            _ if self.blocks(req) => Kind::Blocking,
            _ => Kind::Plain,
        }
    }

    #[inline(never)]
    fn blocks(&self, req: &Request<'_>) -> bool {
        match self.kind {
            KindRule::Always(kind) => kind == Kind::Blocking,
            KindRule::Streams => streams::parse(req).block,
            KindRule::BlockWord => req.args().skip(2).any(|arg| is(arg, "block")),
        }
    }

    /// How this request's reply may be cached; never, if the number of arguments is wrong.
    #[inline]
    pub fn cache(&self, req: &Request<'_>) -> CacheRule {
        match self.cached {
            Cached::Never => CacheRule::Never,
            _ if !self.takes(req.len()) => CacheRule::Never,
            Cached::Single => CacheRule::Single,
            Cached::OneKey if req.len() == 2 => CacheRule::Single,
            Cached::OneKey => CacheRule::Never,
            Cached::Mget => CacheRule::Mget,
            Cached::Unwanted => CacheRule::Unwanted,
        }
    }

    /// Whether this request is a cached read of one key, carried out on the shared link.
    #[inline]
    pub fn is_plain_read(&self, req: &Request<'_>) -> bool {
        self.cached == Cached::Single && self.kind == KindRule::Always(Kind::Plain) && self.takes(req.len())
    }

    /// Whether its name alone tells the row: it neither has subcommands nor is one.
    pub fn is_told_by_name(&self) -> bool {
        self.shape == Shape::Command
    }

    /// Whether its subcommands have rows of their own.
    pub fn is_container(&self) -> bool {
        self.shape == Shape::Container
    }

    /// Whether the elements of its reply come in an order that may change though nothing was written: a large hash or
    /// set is rehashed bit by bit, also while it is read.
    pub fn is_unordered(&self) -> bool {
        matches!(&*self.name, "hgetall" | "hkeys" | "hvals" | "smembers")
    }

    /// Whether any of its replies is cached.
    pub fn is_cached(&self) -> bool {
        !matches!(self.cached, Cached::Never | Cached::Unwanted)
    }

    /// Calls `f` with each key's argument index and what the command does to it.
    ///
    /// A key may be given more than once. `Unknown` is said only of a command that may write: of a
    /// [read](Access::Read) whose keys cannot be told, the found ones are given and the set is `Known`.
    #[inline]
    pub fn keys(&self, req: &Request<'_>, mut f: impl FnMut(usize, KeyUse)) -> KeySet {
        match self.keys.each(req, &mut f) {
            Err(_) if self.keys.0[0] == Part::Everything => KeySet::All,
            Err(_) if self.access == Access::Write => KeySet::Unknown,
            _ => KeySet::Known,
        }
    }

    /// What the reply to this request will tell of the keys that it writes.
    #[inline]
    pub fn tells(&self, req: &Request<'_>) -> Tells {
        self.tells.of(req)
    }

    /// Whether the server would take a request of `len` arguments, the name included.
    #[inline]
    pub fn takes(&self, len: usize) -> bool {
        let (len, arity) = (len as i64, i64::from(self.arity));
        len == arity || arity < 0 && len >= -arity
    }
}

#[cfg(test)]
mod tests;
