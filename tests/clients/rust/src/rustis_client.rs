//! rustis (RESP3): hits, pipelines, transactions, pub/sub, blocking, restarts.

use futures_util::StreamExt;
use rustis::client::{BatchPreparedCommand, Client, ExclusiveClient};
use rustis::commands::{
    BlockingCommands, GenericCommands, ListCommands, PubSubCommands, ServerCommands, StringCommands,
};
use rustis::commands::{FlushingMode, TransactionCommands};

use crate::{Failure, again, step};

async fn hits(r: &Client) -> Result<(), Failure> {
    r.set("read", "1").await?;
    step("reading");
    for _ in 0..10 {
        assert_eq!(r.get::<String>("read").await?, "1");
    }
    step("read");
    Ok(())
}

pub async fn check(host: &str, port: u16) -> Result<(), Failure> {
    let url = format!("redis://{host}:{port}");
    let r = Client::connect(url.as_str()).await?;
    hits(&r).await?;
    r.flushall(FlushingMode::Sync).await?;
    assert_eq!(r.incr("users/a").await?, 1);
    assert_eq!(r.get::<i64>("users/a").await?, 1);
    assert_eq!(r.get::<Option<String>>("users/none").await?, None);
    let mut pipe = r.create_pipeline();
    pipe.incr("users/p").queue();
    pipe.get::<i64>("users/p").queue();
    assert_eq!(pipe.execute::<(i64, i64)>().await?, (1, 1));
    let mut transaction = r.create_transaction();
    transaction.incr("users/p").queue();
    transaction.get::<i64>("users/p").queue();
    assert_eq!(transaction.execute::<(i64, i64)>().await?, (2, 2));
    let other = Client::connect(url.as_str()).await?;
    let mut heard = other.subscribe("news").await?;
    r.publish("news", "hello").await?;
    let message = heard.next().await.ok_or("no message")??;
    assert_eq!(message.payload(), b"hello");
    heard.close().await?;
    let third = ExclusiveClient::connect(url.as_str()).await?;
    third.watch("users/p").await?;
    third.unwatch().await?;
    let waiting = tokio::spawn(async move { third.blpop::<String, String>("queue", 10.0).await });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    r.rpush("queue", "job").await?;
    assert_eq!(waiting.await??, Some(("queue".into(), "job".into())));
    assert_eq!(r.exists("users/p").await?, 1);
    let big = "x".repeat(5_000_000);
    r.set("big", big.as_str()).await?;
    for _ in 0..2 {
        assert!(r.get::<String>("big").await? == big);
    }
    hits(&r).await?;
    let mut many = Vec::new();
    for _ in 0..20 {
        let one = Client::connect(url.as_str()).await?;
        assert_eq!(one.get::<String>("read").await?, "1");
        many.push(one);
    }
    step("many");
    drop(many);
    for which in ["nearside", "upstream"] {
        step(&format!("restart {which}"));
        again(async || r.set("read", "1").await).await?;
        hits(&r).await?;
    }
    Ok(())
}
