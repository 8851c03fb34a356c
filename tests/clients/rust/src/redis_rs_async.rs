//! redis-rs' multiplexed connection and its `ConnectionManager`, which connects anew by itself; RESP2 and RESP3.

use redis::AsyncCommands;
use redis::aio::ConnectionLike;

use crate::{Failure, again, step};

async fn hits<C: ConnectionLike + Clone + Send + Sync>(r: &mut C) -> Result<(), Failure> {
    let () = r.set("read", "1").await?;
    step("reading");
    for _ in 0..10 {
        assert_eq!(r.get::<_, String>("read").await?, "1");
    }
    step("read");
    Ok(())
}

pub async fn check(host: &str, port: u16) -> Result<(), Failure> {
    for options in ["", "?protocol=resp3"] {
        let client = redis::Client::open(format!("redis://{host}:{port}/{options}"))?;
        let mut multiplexed = client.get_multiplexed_async_connection().await?;
        hits(&mut multiplexed).await?;
        let mut pipe = redis::pipe();
        pipe.set("users/p", 1).ignore().incr("users/p", 1).get("users/p");
        assert_eq!(pipe.query_async::<(i64, i64)>(&mut multiplexed).await?, (2, 2));
        assert_eq!(pipe.atomic().query_async::<(i64, i64)>(&mut multiplexed).await?, (2, 2));
        let tasks = (0..100).map(|i| {
            let mut r = multiplexed.clone();
            tokio::spawn(async move {
                let key = format!("users/{i}");
                let () = r.set(&key, i).await?;
                r.get::<_, i64>(&key).await
            })
        });
        for (i, task) in tasks.collect::<Vec<_>>().into_iter().enumerate() {
            assert_eq!(task.await??, i as i64);
        }
        let mut r = client.get_connection_manager().await?;
        hits(&mut r).await?;
        let mut many = Vec::new();
        for _ in 0..20 {
            let mut one = client.get_multiplexed_async_connection().await?;
            assert_eq!(one.get::<_, String>("read").await?, "1");
            many.push(one);
        }
        step("many");
        for which in ["nearside", "upstream"] {
            step(&format!("restart {which}"));
            let manager = r.clone();
            again(async || manager.clone().set::<_, _, ()>("read", "1").await).await?;
            hits(&mut r).await?;
        }
    }
    Ok(())
}
