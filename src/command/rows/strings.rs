//! Strings, bit fields and HyperLogLogs.
//!
//! PFCOUNT is a write here, though the server calls it readonly: it stores the count that it found in the key, and a cached
//! GET of that key would show the difference.

use super::*;

pub(super) const ROWS: &[Spec] = &[
    write("append", 3),
    read("bitcount", -2).cached(Cached::Single),
    write("bitfield", -2).keys(BITFIELD),
    read("bitfield_ro", -2).cached(Cached::Single),
    write("bitop", -4).keys(BITOP),
    read("bitpos", -3).cached(Cached::Single),
    write("decr", 2),
    write("decrby", 3),
    write("delex", -2).keys(DELETED),
    write("delifeq", 3).keys(DELETED),
    read("digest", 2).cached(Cached::Single),
    read("get", 2).cached(Cached::Single),
    read("getbit", 3).cached(Cached::Single),
    write("getdel", 2).keys(DELETED),
    write("getex", -2),
    read("getrange", 4).cached(Cached::Single),
    write("getset", 3),
    write("incr", 2),
    write("incrby", 3),
    write("incrbyfloat", 3),
    write("increx", -2),
    read("lcs", -3).keys(BOTH_READ),
    read("mget", -2).keys(ALL_READ).cached(Cached::Mget),
    write("mset", -3).keys(PAIRS_UPDATED),
    write("msetex", -4).keys(COUNTED_PAIRS_UPDATED),
    write("msetnx", -3).keys(PAIRS_UPDATED),
    write("pfadd", -2),
    write("pfcount", -2).keys(PFCOUNT),
    write("pfdebug", 3).keys(SECOND_UPDATED),
    write("pfmerge", -2).keys(FIRST_UPDATED_REST_READ),
    plain("pfselftest", 1),
    write("psetex", 4),
    write("set", -3),
    write("setbit", 4),
    write("setex", 4),
    write("setnx", 3),
    write("setrange", 4),
    read("stralgo", -2).keys(NO_KEYS),
    read("strlen", 2).cached(Cached::Single),
    read("substr", 4).cached(Cached::Single),
];
