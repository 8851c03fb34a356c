"""django-redis and Django's own Redis cache: what a page reads again and again is a hit; locks, counters, sessions."""

import sys

import django
from django.conf import settings

from step import step

url = f"redis://{sys.argv[1]}:{sys.argv[2]}/1"
settings.configure(
    CACHES={
        "default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url},
        "own": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url, "KEY_PREFIX": "own"},
    },
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
)
django.setup()
from django.contrib.sessions.backends.cache import SessionStore  # noqa: E402
from django.core.cache import caches  # noqa: E402

for name in ("default", "own"):
    cache = caches[name]
    cache.clear()
    cache.set("page", {"title": "hello"}, timeout=300)
    step("reading")
    for _ in range(10):
        assert cache.get("page") == {"title": "hello"}
    step("read")
    cache.set("page", {"title": "new"}, timeout=300)
    assert cache.get("page") == {"title": "new"}
    assert cache.add("page", 1) is False and cache.get("none") is None
    cache.set("n", 1)
    assert cache.incr("n") == 2 and cache.get("n") == 2
    cache.set_many({f"k{i}": i for i in range(50)})
    assert cache.get_many([f"k{i}" for i in range(50)]) == {f"k{i}": i for i in range(50)}
    cache.delete("page")
    assert cache.get("page") is None
with caches["default"].lock("lock", timeout=10):
    pass
session = SessionStore()
session["user"] = 7
session.save()
step("reading")
for _ in range(10):
    assert SessionStore(session.session_key)["user"] == 7
step("read")
print("django-redis", ".".join(map(str, __import__("django_redis").VERSION)), "django", django.get_version())
