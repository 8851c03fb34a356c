"""A process that uses redis-pubsub-dict: takes commands on standard input, answers each in one line.

redis-pubsub-dict 0.0.2 is of the time of Python 2, where a message's payload and str(key) are of one type. In
Python 3 they are only if the subscriber's connection decodes its replies; the values, which are msgpack, must
not be decoded. So the two are given clients of their own; nothing else is changed.
"""
import sys
import time

from pylru import lrucache
from redis import StrictRedis
from redis_pubsub_dict import NoneKey, PubSubCacheManager, PubSubRedisDict

port, prefix = int(sys.argv[1]), sys.argv[2]
probe = StrictRedis(port=port)


def subscribers():
    return [count for _, count in probe.pubsub_numsub(prefix + "/update", prefix + "/delete")]


before = subscribers()
redis = StrictRedis(port=port)
redis.pubsub = StrictRedis(port=port, decode_responses=True).pubsub
manager = PubSubCacheManager(PubSubRedisDict(redis, prefix), lrucache(100))
while not all(now > then for now, then in zip(subscribers(), before)):
    time.sleep(0.005)


def get(key):
    try:
        return "value " + manager[key]
    except KeyError:
        return "none"


def answer(command, key, value=None):
    if command == "set":
        manager[key] = value
    elif command == "del":
        del manager[key]
    elif command == "get":
        return get(key)
    elif command == "cached":
        # Without a look at the store.
        value = manager.cache[key] if key in manager.cache else None
        return "no" if value is None else "none" if value is NoneKey else "value " + value
    return "ok"


print("ready", flush=True)
for line in sys.stdin:
    print(answer(*line.split()), flush=True)
