//! fred: hits, pipelines, transactions, blocking, scripts, restarts; RESP2 by default, and RESP3.

use fred::prelude::*;
use fred::types::RespVersion;

use crate::{Failure, again, step};

async fn client(host: &str, port: u16, version: RespVersion) -> Result<Client, Error> {
    let config = Config { server: ServerConfig::new_centralized(host, port), version, ..Config::default() };
    let policy = ReconnectPolicy::new_constant(0, 50);
    let client = Client::new(config, None, None, Some(policy));
    client.init().await?;
    Ok(client)
}

async fn hits(r: &Client) -> Result<(), Failure> {
    let () = r.set("read", "1", None, None, false).await?;
    step("reading");
    for _ in 0..10 {
        assert_eq!(r.get::<String, _>("read").await?, "1");
    }
    step("read");
    Ok(())
}

pub async fn check(host: &str, port: u16) -> Result<(), Failure> {
    for version in [RespVersion::RESP2, RespVersion::RESP3] {
        let r = client(host, port, version.clone()).await?;
        hits(&r).await?;
        let () = r.flushall(false).await?;
        assert_eq!(r.incr::<i64, _>("users/a").await?, 1);
        assert_eq!(r.get::<i64, _>("users/a").await?, 1);
        assert_eq!(r.get::<Option<String>, _>("users/none").await?, None);
        let pipe = r.pipeline();
        let () = pipe.incr("users/p").await?;
        let () = pipe.get("users/p").await?;
        assert_eq!(pipe.all::<Vec<i64>>().await?, [1, 1]);
        let multi = r.multi();
        let () = multi.incr("users/p").await?;
        let () = multi.get("users/p").await?;
        assert_eq!(multi.exec::<Vec<i64>>(true).await?, [2, 2]);
        let other = client(host, port, version.clone()).await?;
        let waiting = tokio::spawn(async move { other.blpop::<Vec<String>, _>("queue", 10.0).await });
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let () = r.rpush("queue", "job").await?;
        assert_eq!(waiting.await??, ["queue", "job"]);
        let script = "return redis.call('incr', KEYS[1])";
        assert_eq!(r.eval::<i64, _, _, _>(script, "users/p", Vec::<String>::new()).await?, 3);
        assert_eq!(r.get::<i64, _>("users/p").await?, 3);
        let big = "x".repeat(5_000_000);
        let () = r.set("big", &big, None, None, false).await?;
        for _ in 0..2 {
            assert!(r.get::<String, _>("big").await? == big);
        }
        hits(&r).await?;
        let mut many = Vec::new();
        for _ in 0..20 {
            let one = client(host, port, version.clone()).await?;
            assert_eq!(one.get::<String, _>("read").await?, "1");
            many.push(one);
        }
        step("many");
        for one in many {
            one.quit().await?;
        }
        for which in ["nearside", "upstream"] {
            step(&format!("restart {which}"));
            again(async || r.set::<(), _, _>("read", "1", None, None, false).await).await?;
            hits(&r).await?;
        }
        r.quit().await?;
    }
    Ok(())
}
