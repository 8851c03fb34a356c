//! The whole way of a hit in one thread, without sockets: frame, classify, look up, queue the reply.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use divan::{Bencher, black_box, counter::ItemsCount};
use nearside::cache::{
    Bounds, By, Cache, Cover, CoverageId, EntryKey, Expiry, IdentId, Lookup, NO_LINK, Waiter,
};
use nearside::command::{CacheRule, Kind, Table};
use nearside::resp::framer::{Frame, Limits, RequestFramer};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

const NOW: u64 = 1;
const STALENESS: u64 = 1_000_000;
const KEYS: usize = 10_000;

/// Nobody waits for another's flight here.
struct Nobody;

impl Waiter for Nobody {
    fn served(self, _reply: Bytes) {}
    fn released(self) {}
}

fn lookup(
    cache: &Arc<Cache<Nobody>>,
    name: &EntryKey<'_>,
    coverage: CoverageId,
    serve: impl FnOnce(&[u8]),
) -> Lookup<Nobody> {
    let bounds = Bounds { max_staleness: STALENESS, unreachable: false, group: 0 };
    cache.lookup(
        name,
        NOW,
        bounds,
        || Some(Cover { coverage, link: NO_LINK, registers: false }),
        |_| None,
        serve,
    )
}

/// A cache that holds every key, with 64 bytes.
fn warm(table: &Table) -> (Arc<Cache<Nobody>>, CoverageId) {
    let cache = Arc::new(Cache::new(64 << 20, 1 << 20, 0));
    let slot = cache.coverages().take().expect("a free slot");
    let coverage = cache.coverages().arm(&slot, None, NOW).expect("no parent that could have ended");
    let command = table.number(b"get").expect("GET");
    let reply = format!("$64\r\n{}\r\n", "x".repeat(64));
    for key in (0..KEYS).map(key) {
        let name = EntryKey { key: key.as_bytes(), ident: IdentId(0), command, args: b"", by: By::ITSELF };
        if let Lookup::Miss(lease) = lookup(&cache, &name, coverage, |_| ()) {
            let expiry = Expiry { expires: u64::MAX, aged: false };
            lease.fill(reply.as_bytes(), expiry, NOW, STALENESS).expect("an undisturbed fill");
        }
    }
    (cache, coverage)
}

fn key(i: usize) -> String {
    format!("key:{i:020}")
}

/// Requests for keys all over the cache, `depth` in each batch.
#[divan::bench(args = [1, 16, 64])]
fn hit(bencher: Bencher<'_, '_>, depth: usize) {
    let table = Table::builtin();
    let (cache, coverage) = warm(&table);
    let batches: Vec<Vec<u8>> = (0..KEYS / depth)
        .map(|batch| {
            let requests = (0..depth)
                .map(|i| format!("*2\r\n$3\r\nGET\r\n$24\r\n{}\r\n", key((batch * depth + i) * 7919 % KEYS)));
            requests.collect::<String>().into_bytes()
        })
        .collect();
    let mut batches = batches.iter().cycle();
    let mut framer = RequestFramer::new(Limits::default());
    let mut out = BytesMut::with_capacity(64 << 10);
    bencher.counter(ItemsCount::new(depth)).bench_local(|| {
        let mut rest = black_box(batches.next().expect("a cycle").as_slice());
        let mut hits = 0;
        while let Ok(Frame::Request(used)) = framer.next(rest) {
            let request = framer.request(rest);
            let row = table.lookup(&request).expect("GET");
            if row.kind(&request) == Kind::Plain && row.cache(&request) == CacheRule::Single {
                let name = EntryKey {
                    key: request.arg(1),
                    ident: IdentId(0),
                    command: row.id,
                    args: request.raw_after(1),
                    by: By::ITSELF,
                };
                let found = lookup(&cache, &name, coverage, |reply| out.extend_from_slice(reply));
                hits += usize::from(matches!(found, Lookup::Hit));
            }
            rest = &rest[used..];
        }
        assert_eq!(hits, depth);
        out.clear();
    });
}
