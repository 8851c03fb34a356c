//! The table, and the look-up that every request passes through.
//!
//! Invariants: a look-up allocates nothing and takes no lock; a built-in row's id is its index.

use super::name::Short;
use super::row::{Kind, KindRule, Local, Row, Shape};
use super::rows;
use crate::resp::request::Request;
use std::collections::HashMap;

/// No command's name is longer; a server's that is has no row, and is thus handled as unknown.
pub(super) const MAX_NAME: usize = 64;

/// No row has this number.
const NO_ROW: u16 = u16::MAX;

/// Every known command. Immutable; shared by `Arc`.
#[derive(Clone, Debug)]
pub struct Table {
    pub(super) rows: Vec<Row>,
    /// Open addressing: where a short name's hash leads, or soon behind, is the number of its row.
    index: Box<[u16]>,
    /// The short names of the rows, by number.
    short: Box<[Option<Short>]>,
    long: HashMap<Box<[u8]>, u16>,
}

impl Table {
    /// The commands of Redis 2 to 8.10 and Valkey 7.2 to 9.1, with those of Redis' own modules.
    pub fn builtin() -> Table {
        Self::new(rows::all())
    }

    /// Precondition: each row's id is its index, and no name comes twice.
    pub(super) fn new(mut rows: Vec<Row>) -> Table {
        let short: Box<[_]> = rows.iter().map(|row| Short::new(row.name.as_bytes())).collect();
        let mut long = HashMap::new();
        // A quarter full at most, so that every search ends, and soon.
        let mut index = vec![NO_ROW; (rows.len() * 4).next_power_of_two()].into_boxed_slice();
        for row in &rows {
            let Some(key) = short[usize::from(row.id)] else {
                long.insert(row.name.as_bytes().into(), row.id);
                continue;
            };
            let mut at = key.hash() & (index.len() - 1);
            while index[at] != NO_ROW {
                at = (at + 1) & (index.len() - 1);
            }
            index[at] = row.id;
        }
        let mut table = Table { rows: Vec::new(), index, short, long };
        for i in 0..rows.len() {
            if let Some((parent, _)) = rows[i].name.split_once('|') {
                let parent = table.id(parent.as_bytes());
                rows[i].shape = Shape::Subcommand;
                if let Some(id) = parent {
                    rows[usize::from(id)].shape = Shape::Container;
                }
            }
        }
        table.rows = rows;
        table
    }

    /// The row of the request's command, or of its subcommand if that has one. Case does not matter.
    ///
    /// `None` is a command of which nothing is known, not even that it leaves its connection as it was.
    #[inline]
    pub fn lookup(&self, req: &Request<'_>) -> Option<&Row> {
        let name = req.arg(0);
        let Some(row) = self.find(name) else { return self.http(name) };
        match row.shape {
            Shape::Command => Some(row),
            Shape::Container => Some(self.subcommand(name, req).unwrap_or(row)),
            // `client|id` as one word is no command.
            Shape::Subcommand => None,
        }
    }

    /// A browser's word up to a NUL: the one comparison that Redis makes of C strings (`processCommand`).
    #[cold]
    fn http(&self, name: &[u8]) -> Option<&Row> {
        let row = self.find(&name[..memchr::memchr(0, name)?])?;
        (row.kind == KindRule::Always(Kind::Local(Local::Http))).then_some(row)
    }

    #[inline(never)]
    fn subcommand(&self, name: &[u8], req: &Request<'_>) -> Option<&Row> {
        let sub = req.get(1)?;
        let (bar, len) = (name.len(), name.len() + 1 + sub.len());
        let mut joined = [0; MAX_NAME];
        let joined = joined.get_mut(..len)?;
        joined[..bar].copy_from_slice(name);
        joined[bar] = b'|';
        joined[bar + 1..].copy_from_slice(sub);
        self.find(joined)
    }

    /// The number of the row of this very name.
    pub fn number(&self, name: &[u8]) -> Option<u16> {
        self.id(name)
    }

    /// The row of this number.
    pub fn row(&self, number: u16) -> Option<&Row> {
        self.rows.get(usize::from(number))
    }

    /// The row of this very name, a subcommand's included.
    #[inline]
    pub(super) fn find(&self, name: &[u8]) -> Option<&Row> {
        self.rows.get(usize::from(self.id(name)?))
    }

    #[inline]
    fn id(&self, name: &[u8]) -> Option<u16> {
        match Short::new(name) {
            Some(key) => {
                let mut at = key.hash() & (self.index.len() - 1);
                loop {
                    let id = self.index[at];
                    if self.short.get(usize::from(id))?.is_some_and(|known| known == key) {
                        return Some(id);
                    }
                    at = (at + 1) & (self.index.len() - 1);
                }
            }
            None => self.long_id(name),
        }
    }

    #[inline(never)]
    fn long_id(&self, name: &[u8]) -> Option<u16> {
        let mut lower = [0; MAX_NAME];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        self.long.get(&*lower).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::Sample;
    use super::*;
    use std::collections::HashSet;

    fn name(table: &Table, words: &[&str]) -> Option<String> {
        table.lookup(&Sample::new(words).req()).map(|row| row.name.to_string())
    }

    #[test]
    fn finds_by_name_in_any_case() {
        let table = Table::builtin();
        for (words, expected) in [
            (&["get", "k"][..], Some("get")),
            (&["GeT"], Some("get")),
            (&["GEORADIUSBYMEMBER_RO"], Some("georadiusbymember_ro")),
            (&["Client", "SetName", "x"], Some("client|setname")),
            (&["CLUSTER", "Count-Failure-Reports", "x"], Some("cluster|count-failure-reports")),
            (&["CLIENT", "WHAT"], Some("client")),
            (&["CLIENT"], Some("client")),
            (&["GET", "|"], Some("get")),
            (&[""], None),
            (&["NOSUCH"], None),
            (&["get\0"], None),
            (&["g@t"], None),
            (&["client|id"], None),
            (&["Post", "/"], Some("post")),
            (&["HOST:\0x"], Some("host:")),
            (&["QUIT\0"], None),
            (&["client|"], None),
        ] {
            assert_eq!(name(&table, words).as_deref(), expected, "{words:?}");
        }
        for len in 0..200 {
            let long = "x".repeat(len);
            assert_eq!(name(&table, &[&long]), None);
            assert_eq!(name(&table, &["CLIENT", &long]).as_deref(), Some("client"));
        }
    }

    #[test]
    fn rows_are_whole() {
        let table = Table::builtin();
        let mut names = HashSet::new();
        for (i, row) in table.rows.iter().enumerate() {
            assert_eq!(usize::from(row.id), i);
            assert!(names.insert(row.name.clone()), "{} comes twice", row.name);
            assert!(row.name.len() <= MAX_NAME);
            assert_eq!(row.name, row.name.to_ascii_lowercase());
            assert_ne!(row.arity, 0, "{}", row.name);
            let parent = row.name.split('|').next().unwrap_or_default();
            assert!(table.find(parent.as_bytes()).is_some(), "{} has no container", row.name);
        }
    }

    #[test]
    fn a_row_is_found_by_its_number() {
        let table = Table::builtin();
        for row in &table.rows {
            let number = table.number(row.name.to_uppercase().as_bytes());
            assert_eq!(number, Some(row.id));
            assert_eq!(table.row(row.id).map(|found| &found.name), Some(&row.name));
        }
        assert_eq!(table.number(b"nosuch"), None);
        assert!(table.row(table.rows.len() as u16).is_none());
    }

    #[test]
    fn short_names_do_not_crowd() {
        // One collision in the low bits now and then is fair; a pile is not.
        let table = Table::builtin();
        let mut buckets = [0u8; 1024];
        for name in table.short.iter().flatten() {
            buckets[name.hash() % 1024] += 1;
        }
        assert!(buckets.iter().all(|&n| n <= 6), "{:?}", buckets.iter().max());
    }
}
