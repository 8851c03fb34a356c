//! redis-rs, as an application uses it: sync and async, RESP2 and RESP3.

use crate::support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use redis::{AsyncCommands, Client, Commands, RedisResult};
use support::{Nearside, Redis};

fn client(nearside: &Nearside, protocol: &str) -> Client {
    Client::open(format!("redis://{}/?protocol={protocol}", nearside.address)).unwrap()
}

#[test]
fn sync() -> RedisResult<()> {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    for protocol in ["resp2", "resp3"] {
        let client = client(&nearside, protocol);
        let mut conn = client.get_connection()?;
        let () = redis::cmd("FLUSHALL").query(&mut conn)?;
        let () = conn.set("users/a", 1)?;
        for _ in 0..3 {
            assert_eq!(conn.get::<_, i64>("users/a")?, 1);
            assert_eq!(conn.get::<_, Option<i64>>("users/none")?, None);
        }
        let () = conn.hset_multiple("h", &[("a", 1), ("b", 2)])?;
        let all: HashMap<String, i64> = conn.hgetall("h")?;
        assert_eq!((all["a"], all["b"]), (1, 2));
        let (one, two): (i64, Vec<i64>) =
            redis::pipe().incr("users/n", 1).rpush("l", 7).ignore().lrange("l", 0, -1).query(&mut conn)?;
        assert_eq!((one, two), (1, vec![7]));
        let (n,): (i64,) =
            redis::pipe().atomic().set("users/n", 5).ignore().incr("users/n", 1).query(&mut conn)?;
        assert_eq!(n, 6);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let client = client.clone();
                std::thread::spawn(move || {
                    let mut conn = client.get_connection().unwrap();
                    for _ in 0..20 {
                        let (_,): (i64,) = redis::transaction(&mut conn, &["users/n"], |conn, pipe| {
                            let old: i64 = conn.get("users/n")?;
                            pipe.set("users/n", old + 1).ignore().get("users/n").query(conn)
                        })
                        .unwrap();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(conn.get::<_, i64>("users/n")?, 86);
        let double = "return redis.call('set', KEYS[1], ARGV[1] * 2)";
        let () = redis::cmd("EVAL").arg(double).arg(1).arg("users/d").arg(21).query(&mut conn)?;
        assert_eq!(conn.get::<_, i64>("users/d")?, 42);
        let keys: Vec<String> = conn.scan_match("users/*")?.collect::<RedisResult<_>>()?;
        assert_eq!(keys.len(), 3);
        let wrong: RedisResult<i64> = conn.lpush("users/a", 1);
        assert!(wrong.unwrap_err().to_string().contains("WRONGTYPE"));

        let mut listener = client.get_connection()?;
        let mut pubsub = listener.as_pubsub();
        pubsub.subscribe("news")?;
        pubsub.psubscribe("n*")?;
        let () = conn.publish("news", "hello")?;
        for _ in 0..2 {
            assert_eq!(pubsub.get_message()?.get_payload::<String>()?, "hello");
        }
        drop(pubsub);
        assert_eq!(listener.get::<_, i64>("users/a")?, 1, "back to normal");
    }
    assert!(nearside.stat("hits") > 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asynchronous() -> RedisResult<()> {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    for protocol in ["resp2", "resp3"] {
        let client = client(&nearside, protocol);
        let conn = client.get_multiplexed_async_connection().await?;
        let done = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..50)
            .map(|i| {
                let (mut conn, done) = (conn.clone(), done.clone());
                tokio::spawn(async move {
                    for n in 0..20 {
                        let () = conn.set(format!("users/{i}"), n).await.unwrap();
                        assert_eq!(conn.get::<_, i64>(format!("users/{i}")).await.unwrap(), n);
                        assert_eq!(conn.get::<_, i64>(format!("users/{i}")).await.unwrap(), n);
                        let pair: (i64, String) = redis::pipe()
                            .atomic()
                            .get(format!("users/{i}"))
                            .cmd("ECHO")
                            .arg("x")
                            .query_async(&mut conn)
                            .await
                            .unwrap();
                        assert_eq!(pair, (n, "x".into()));
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(done.load(Ordering::Relaxed), 1000);
    }
    Ok(())
}
