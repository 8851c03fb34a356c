//! A client that is told of a change by the channels reads what changed, though the feed may hear later.

use crate::support;

use nearside::config::Tracking;
use support::{Nearside, Redis, line};

#[test]
fn a_subscriber_does_not_read_what_was_before() {
    for tracking in [Tracking::Off, Tracking::Keys] {
        let redis = Redis::start();
        let nearside = Nearside::with(redis.address(), |config| config.tracking = tracking);
        let (mut direct, mut reader) = (redis.connect(), nearside.connect());
        let mut exact = nearside.connect();
        exact.send(&line("SUBSCRIBE users/update"));
        exact.reply();
        let mut pattern = nearside.connect_resp3();
        pattern.send(&line("PSUBSCRIBE users/*"));
        pattern.reply();
        for i in 0..300 {
            assert_eq!(reader.value("users/1"), reader.value("users/1"));
            let told = if i % 2 == 0 { &mut exact } else { &mut pattern };
            direct.send(&[line(&format!("SET users/1 {i}")), line("PUBLISH users/update 1")].concat());
            told.reply();
            assert_eq!(reader.value("users/1"), Some(i.to_string()), "{tracking:?}");
            assert_eq!((direct.reply(), direct.reply().len()), (b"+OK\r\n".to_vec(), 4));
            if i % 2 == 0 {
                pattern.reply()
            } else {
                exact.reply()
            };
        }
    }
}
