//! Scripts and functions.
//!
//! A script counts as writing the keys that it declares, and others that it does not: of those nobody can know.

use super::spec::*;

pub(super) const ROWS: &[Spec] = &[
    write("eval", -3).keys(SCRIPTED).tells(Tells::Script),
    read("eval_ro", -3).keys(COUNTED_SECOND_READ),
    write("evalsha", -3).keys(SCRIPTED).tells(Tells::Script),
    read("evalsha_ro", -3).keys(COUNTED_SECOND_READ),
    write("fcall", -3).keys(SCRIPTED).tells(Tells::Script),
    read("fcall_ro", -3).keys(COUNTED_SECOND_READ),
    plain("function", -2),
    write("function|delete", 3).keys(UNKNOWN).all(Gives::AllSucceeded),
    plain("function|dump", 2),
    write("function|flush", -2).keys(UNKNOWN).all(Gives::AllSucceeded),
    plain("function|help", 2),
    plain("function|kill", 2).kind(Kind::Aside).all(Gives::OneSucceeded),
    plain("function|list", -2),
    write("function|load", -3).keys(UNKNOWN).all(Gives::AllSucceeded),
    write("function|restore", -3).keys(UNKNOWN).all(Gives::AllSucceeded),
    plain("function|stats", 2).kind(Kind::Aside),
    plain("script", -2),
    plain("script|debug", 3).kind(Kind::Connection),
    plain("script|exists", -3).all(Gives::LogicalAnd),
    plain("script|flush", -2).all(Gives::AllSucceeded),
    plain("script|help", 2),
    plain("script|kill", 2).kind(Kind::Aside).all(Gives::OneSucceeded),
    plain("script|load", 3).all(Gives::AllSucceeded),
    plain("script|show", 3),
];
