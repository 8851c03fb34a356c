//! redis-rs, blocking: hits, pipelines, transactions, pub/sub, scripts, scans, restarts; RESP2 by default, and RESP3.

use redis::{Commands, Connection};

use crate::{Failure, step};

fn hits(r: &mut Connection) -> Result<(), Failure> {
    let () = r.set("read", "1")?;
    step("reading");
    for _ in 0..10 {
        assert_eq!(r.get::<_, String>("read")?, "1");
    }
    step("read");
    Ok(())
}

pub fn check(host: &str, port: u16) -> Result<(), Failure> {
    for options in ["", "?protocol=resp3"] {
        let url = format!("redis://{host}:{port}/{options}");
        let client = redis::Client::open(url)?;
        let mut r = client.get_connection()?;
        hits(&mut r)?;
        redis::cmd("FLUSHALL").exec(&mut r)?;
        assert_eq!(r.incr::<_, _, i64>("users/a", 1)?, 1);
        assert_eq!(r.get::<_, i64>("users/a")?, 1);
        assert_eq!(r.get::<_, Option<String>>("users/none")?, None);
        let mut pipe = redis::pipe();
        pipe.set("users/p", 1).ignore().incr("users/p", 1).get("users/p");
        assert_eq!(pipe.query::<(i64, i64)>(&mut r)?, (2, 2));
        assert_eq!(pipe.atomic().query::<(i64, i64)>(&mut r)?, (2, 2));
        let mut other = client.get_connection()?;
        redis::cmd("WATCH").arg("users/p").exec(&mut r)?;
        let _: i64 = other.incr("users/p", 1)?;
        let lost: Option<()> = redis::pipe().atomic().set("users/p", "lost").ignore().query(&mut r)?;
        assert!(lost.is_none());
        assert_eq!(r.get::<_, i64>("users/p")?, 3);
        let mut listening = client.get_connection()?;
        let mut pubsub = listening.as_pubsub();
        pubsub.subscribe("news")?;
        let _: i64 = r.publish("news", "hello")?;
        assert_eq!(pubsub.get_message()?.get_payload::<String>()?, "hello");
        let script = redis::Script::new("return redis.call('incr', KEYS[1])");
        assert_eq!(script.key("users/p").invoke::<i64>(&mut r)?, 4);
        assert_eq!(r.get::<_, i64>("users/p")?, 4);
        for i in 0..100 {
            let () = r.set(format!("users/{i}"), i)?;
        }
        let seen =
            r.scan_match::<_, String>("users/*")?.collect::<Result<std::collections::HashSet<_>, _>>()?;
        assert_eq!(seen.len(), 102);
        let big = "x".repeat(5_000_000);
        let () = r.set("big", &big)?;
        for _ in 0..2 {
            assert!(r.get::<_, String>("big")? == big);
        }
        hits(&mut r)?;
        let mut many = Vec::new();
        for _ in 0..20 {
            let mut one = client.get_connection()?;
            assert_eq!(one.get::<_, String>("read")?, "1");
            many.push(one);
        }
        step("many");
        for which in ["nearside", "upstream"] {
            step(&format!("restart {which}"));
            // A blocking connection does not connect anew by itself; its link to nearside outlives the upstream.
            if which == "nearside" {
                r = client.get_connection()?;
            }
            hits(&mut r)?;
        }
    }
    Ok(())
}
