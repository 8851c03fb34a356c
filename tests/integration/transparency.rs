//! P1: whatever a client says, and however it cuts it up, the reply is what the server itself would say.
//!
//! `NEARSIDE_DIFF_COMMANDS=1000000 NEARSIDE_DIFF_SEED=7 cargo test --release --test transparency long` runs one
//! long stream.

#[path = "../support/differential.rs"]
mod differential;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

fn differs_nowhere(seed: u64, commands: usize) {
    let done = differential::run(seed, commands);
    eprintln!(
        "seed {seed}: {} commands in {} batches, {} served from the cache, {} errors, slowest {:?}: no difference",
        done.commands, done.batches, done.hits, done.errors, done.slowest
    );
    assert!(done.hits as usize > commands / 100, "the cache was hardly used: {} hits", done.hits);
    assert!(done.errors > commands / 100, "hardly anything went wrong: {} errors", done.errors);
}

macro_rules! streams {
    ($($name:ident: $seed:expr,)*) => {$(
        #[test]
        fn $name() {
            differs_nowhere($seed, 5_000);
        }
    )*};
}

streams! {
    stream_1: 1,
    stream_2: 2,
    stream_3: 3,
    stream_4: 4,
    stream_5: 5,
    stream_6: 6,
}

/// As long as is asked for.
#[test]
fn long_stream() {
    let commands = number("NEARSIDE_DIFF_COMMANDS", 2_000);
    differs_nowhere(number("NEARSIDE_DIFF_SEED", 7), commands as usize);
}
