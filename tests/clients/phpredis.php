<?php
// phpredis: hits, pipelines, transactions, scripts, scans, restarts. Its connections are blocking, one for each object.
require __DIR__ . '/step.php';
[, $host, $port] = $argv;

function client(): Redis {
    global $host, $port;
    $one = new Redis();
    $one->connect($host, (int)$port);
    return $one;
}

function hits(Redis $r): void {
    $r->set('read', '1');
    step('reading');
    for ($i = 0; $i < 10; $i++) is($r->get('read'), '1');
    step('read');
}

$r = client();
hits($r);
$r->flushAll();
is($r->incr('users/a'), 1);
is($r->get('users/a'), '1');
is($r->get('users/none'), false);
is($r->pipeline()->set('users/p', '1')->incr('users/p')->get('users/p')->exec(), [true, 2, '2']);
is($r->multi()->set('users/p', '1')->incr('users/p')->get('users/p')->exec(), [true, 2, '2']);
$other = client();
$r->watch('users/p');
$other->incr('users/p');
is($r->multi()->set('users/p', 'lost')->exec(), false);
is($r->get('users/p'), '3');
is($r->blPop(['queue'], 1), []);
$other->rPush('queue', 'job');
is($r->blPop(['queue'], 5), ['queue', 'job']);
is($r->eval("return redis.call('incr', KEYS[1])", ['users/p'], 1), 4);
is($r->get('users/p'), '4');
$r->hMSet('h', ['a' => '1', 'b' => 'two']);
is($r->hGetAll('h'), ['a' => '1', 'b' => 'two']);
$values = [];
for ($i = 0; $i < 100; $i++) $values["users/$i"] = (string)$i;
$r->mSet($values);
is($r->mGet(array_keys($values)), array_values($values));
$seen = [];
$cursor = null;
while (($keys = $r->scan($cursor, 'users/*', 20)) !== false) $seen = array_merge($seen, $keys);
is(count(array_unique($seen)), 102);
$big = str_repeat('x', 5000000);
$r->set('big', $big);
for ($i = 0; $i < 2; $i++) is($r->get('big') === $big, true);
hits($r);
$many = [];
for ($i = 0; $i < 20; $i++) $many[] = client();
foreach ($many as $one) is($one->get('read'), '1');
step('many');
foreach ($many as $one) $one->close();
foreach (['nearside', 'upstream'] as $which) {
    step("restart $which");
    // It connects anew at the next command, or throws.
    again(fn() => $r->set('read', '1'));
    hits($r);
}
echo 'phpredis ', phpversion('redis'), "\n";
