"""Which clients there are, in which versions, and which steps each has to take."""

from pathlib import Path

import installing

HERE = Path(__file__).resolve().parent
# What every client is asked for; see `run`.
CLIENT = ("reading", "read", "many", "restart nearside", "restart upstream")
# Things built on clients: what they do is theirs, that they get hits is not always to be seen.
BUILT_ON = ()
# In front of a cluster, which is not started anew.
CLUSTER = ("reading", "read", "many", "restart nearside")


class Client:
    def __init__(self, name, script, *arguments, steps=CLIENT, cluster=None):
        """`cluster`: the upstream is one, and nearside presents it so (`present-as`)."""
        self.name, self.script, self.arguments, self.steps = name, HERE / script, list(arguments), steps
        self.cluster = cluster

    def install(self, target):
        """Brings what is missing; the environment variables that the script needs."""
        return {}

    def command(self, target, host, port):
        return ["sh", str(self.script), host, port] + self.arguments


class Python(Client):
    def __init__(self, name, specs, script, *arguments, **options):
        super().__init__(name, script, *arguments, **options)
        self.specs = specs.split()

    def install(self, target):
        return {"PYTHONPATH": f"{installing.python(target, self.specs)}:{HERE}"}

    def command(self, target, host, port):
        return [str(target / "venv" / "bin" / "python"), str(self.script), host, port] + self.arguments


class Node(Client):
    def install(self, target):
        return {"NODE_PATH": f"{installing.node(target)}:{HERE}"}

    def command(self, target, host, port):
        return ["node", str(self.script), host, port] + self.arguments


class Debian(Client):
    def __init__(self, name, packages, check, program, script, *arguments, **options):
        super().__init__(name, script, *arguments, **options)
        self.packages, self.check, self.program = packages.split(), check.split(), program

    def install(self, target):
        installing.debian(self.packages, self.check)
        return {}

    def command(self, target, host, port):
        return [self.program, str(self.script), host, port] + self.arguments


class Rust(Client):
    def __init__(self, name, **options):
        super().__init__(name, "rust", **options)

    def install(self, target):
        self.program = installing.rust(target)
        return {}

    def command(self, target, host, port):
        return [str(self.program), host, port, self.name]


def redis_py(version, package="redis", extra=""):
    """redis-py, or its fork for Valkey, sync and, where it has it, asyncio."""
    specs = f"{package}=={version} {extra}".strip()
    name = {"redis": "redis-py", "valkey": "valkey-py"}[package] + "-" + version.split(".")[0] + ("-hiredis" if extra else "")
    yield Python(name, specs, "redis_py.py", package)
    if not version.startswith("3."):
        yield Python(name + "-asyncio", specs, "redis_py_asyncio.py", package)


ALL = [
    *redis_py("3.5.3"),
    *redis_py("4.6.0"),
    *redis_py("5.3.1"),
    *redis_py("6.4.0"),
    *redis_py("7.4.1"),
    *redis_py("8.1.0"),
    *redis_py("8.1.0", extra="hiredis==3.5.0"),
    *redis_py("6.2.0", package="valkey"),
    Python("hiredis", "hiredis==3.5.0", "hiredis_raw.py", steps=("reading", "read")),
    Python("aioredis-2", "aioredis==2.0.1 async-timeout==4.0.3", "aioredis_2.py"),
    Python("coredis-6", "coredis==6.9.0", "coredis_6.py"),
    Python("valkey-glide-python", "valkey-glide==2.5.3", "valkey_glide.py"),
    Python("valkey-glide-python-sync", "valkey-glide-sync==2.5.3", "valkey_glide_sync.py"),
    Node("valkey-glide-node", "valkey_glide.js"),
    Node("ioredis-4", "ioredis.js", "ioredis4"),
    Node("ioredis-5", "ioredis.js", "ioredis5"),
    Node("ioredis-6", "ioredis.js", "ioredis"),
    Node("iovalkey", "ioredis.js", "iovalkey"),
    Node("node-redis-3", "node_redis_3.js"),
    Node("node-redis-4", "node_redis.js", "redis4"),
    Node("node-redis-5", "node_redis.js", "redis5"),
    Node("node-redis-6", "node_redis.js", "redis"),
    Debian("phpredis", "php-cli php-redis", "php --ri redis", "php", "phpredis.php"),
    Debian("predis", "php-cli php-predis", "php -r require('Predis/autoload.php');", "php", "predis.php"),
    Debian("redis-rb", "ruby ruby-redis", "ruby -e require('redis')", "ruby", "redis_rb.rb"),
    Debian("perl-redis", "perl libredis-perl", "perl -MRedis -e 1", "perl", "perl_redis.pl"),
    Rust("redis-rs"),
    Rust("redis-rs-async"),
    Rust("fred"),
    Rust("rustis"),
    Client("redis-cli", "redis_cli.sh", steps=("reading", "read")),
    Python("rq", "rq==3.0.0 redis==8.1.0", "rq_jobs.py", steps=BUILT_ON),
    Python("celery", "celery[redis]==5.7.0", "celery_tasks.py", steps=BUILT_ON),
    Python("dramatiq", "dramatiq[redis]==2.2.1", "dramatiq_tasks.py", steps=BUILT_ON),
    # The newest that Python 3.11 and the present Django agree on.
    Python("django-redis", "django-redis<8 django<6", "django_cache.py", steps=("reading", "read")),
    Node("bullmq", "bullmq.js", steps=BUILT_ON),
    Node("bull", "bull.js", steps=BUILT_ON),
    Node("bee-queue", "bee_queue.js", steps=BUILT_ON),
    Node("connect-redis", "sessions.js", steps=("reading", "read")),
    Node("cache-manager", "cache_manager.js", steps=("reading", "read")),
    Client("redis-benchmark", "redis_benchmark.sh", steps=BUILT_ON),
    Python("redis-py-before-a-cluster", "redis==8.1.0", "cluster.py", "Redis", steps=CLUSTER, cluster="standalone"),
    Python("redis-py-cluster", "redis==8.1.0", "cluster.py", "RedisCluster", steps=CLUSTER, cluster="cluster"),
    Python("redis-py-5-cluster", "redis==5.3.1", "cluster.py", "RedisCluster", steps=CLUSTER, cluster="cluster"),
    Node("ioredis-before-a-cluster", "cluster.js", "ioredis", "plain", steps=CLUSTER, cluster="standalone"),
    Node("ioredis-cluster", "cluster.js", "ioredis", "cluster", steps=CLUSTER, cluster="cluster"),
    Node("ioredis-4-cluster", "cluster.js", "ioredis4", "cluster", steps=CLUSTER, cluster="cluster"),
    Node("node-redis-before-a-cluster", "cluster.js", "redis", "plain", steps=CLUSTER, cluster="standalone"),
    Node("node-redis-cluster", "cluster.js", "redis", "cluster", steps=CLUSTER, cluster="cluster"),
]
