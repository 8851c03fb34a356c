//! Strings, bit fields and HyperLogLogs.
//!
//! PFCOUNT is a write here, though the server calls it readonly: it stores the count that it found in the key, and a cached
//! GET of that key would show the difference.

use super::spec::*;

pub(super) const ROWS: &[Spec] = &[
    write("append", 3).tells(Tells::There),
    read("bitcount", -2).cached(Cached::Single),
    write("bitfield", -2).keys(BITFIELD),
    read("bitfield_ro", -2).cached(Cached::Single),
    write("bitop", -4).keys(BITOP).tells(Tells::Stored),
    read("bitpos", -3).cached(Cached::Single),
    write("decr", 2).tells(Tells::There),
    write("decrby", 3).tells(Tells::There),
    write("delex", -2).keys(DELETED).tells(Tells::MayBe),
    write("delifeq", 3).keys(DELETED).tells(Tells::MayBe),
    read("digest", 2).cached(Cached::Single),
    read("get", 2).cached(Cached::Single),
    read("getbit", 3).cached(Cached::Single),
    write("getdel", 2).keys(DELETED).tells(Tells::MayBe),
    write("getex", -2).tells(Tells::GetEx),
    read("getrange", 4).cached(Cached::Single),
    write("getset", 3).tells(Tells::There),
    write("incr", 2).tells(Tells::There),
    write("incrby", 3).tells(Tells::There),
    write("incrbyfloat", 3).tells(Tells::There),
    write("increx", -2),
    read("lcs", -3).keys(BOTH_READ),
    read("mget", -2).keys(ALL_READ).cached(Cached::Mget).split(Gives::Default),
    write("mset", -3).keys(PAIRS_UPDATED).tells(Tells::Certain).split(Gives::AllSucceeded),
    write("msetex", -4).keys(COUNTED_PAIRS_UPDATED).tells(Tells::MayBe),
    write("msetnx", -3).keys(PAIRS_UPDATED).tells(Tells::ThereIf).one(),
    write("pfadd", -2).tells(Tells::ThereIf),
    write("pfcount", -2).keys(PFCOUNT).tells(Tells::ThereIf),
    write("pfdebug", 3).keys(SECOND_UPDATED),
    write("pfmerge", -2).keys(FIRST_UPDATED_REST_READ).tells(Tells::There),
    plain("pfselftest", 1),
    write("psetex", 4).tells(Tells::Certain),
    write("set", -3).tells(Tells::Set),
    write("setbit", 4).tells(Tells::There),
    write("setex", 4).tells(Tells::Certain),
    write("setnx", 3).tells(Tells::ThereIf),
    write("setrange", 4).tells(Tells::ThereIf),
    read("stralgo", -2).keys(NO_KEYS),
    read("strlen", 2).cached(Cached::Single),
    read("substr", 4).cached(Cached::Single),
];
