<?php
// Predis: hits, pipelines, transactions, pub/sub, scripts, scans, restarts.
require __DIR__ . '/step.php';
require 'Predis/autoload.php';
[, $host, $port] = $argv;

function client(): Predis\Client {
    global $host, $port;
    return new Predis\Client(['host' => $host, 'port' => (int)$port]);
}

function hits(Predis\Client $r): void {
    $r->set('read', '1');
    step('reading');
    for ($i = 0; $i < 10; $i++) is($r->get('read'), '1');
    step('read');
}

$r = client();
hits($r);
$r->flushall();
is($r->incr('users/a'), 1);
is($r->get('users/a'), '1');
is($r->get('users/none'), null);
$replies = $r->pipeline(fn($pipe) => $pipe->set('users/p', '1') && $pipe->incr('users/p') && $pipe->get('users/p'));
is(array_slice($replies, 1), [2, '2']);
$replies = $r->transaction(fn($tx) => $tx->set('users/p', '1') && $tx->incr('users/p') && $tx->get('users/p'));
is(array_slice($replies, 1), [2, '2']);
$other = client();
$r->watch('users/p');
$other->incr('users/p');
$r->multi();
$r->set('users/p', 'lost');
is($r->exec(), null);
is($r->get('users/p'), '3');
$loop = client()->pubSubLoop();
$loop->subscribe('news');
foreach ($loop as $message) {
    if ($message->kind === 'subscribe') is($r->publish('news', 'hello'), 1);
    if ($message->kind === 'message') {
        is($message->payload, 'hello');
        $loop->unsubscribe();
    }
}
$other->rpush('queue', ['job']);
is($r->blpop(['queue'], 5), ['queue', 'job']);
is($r->eval("return redis.call('incr', KEYS[1])", 1, 'users/p'), 4);
is($r->get('users/p'), '4');
for ($i = 0; $i < 100; $i++) $r->set("users/$i", (string)$i);
$seen = [];
foreach (new Predis\Collection\Iterator\Keyspace($r, 'users/*') as $key) $seen[$key] = true;
is(count($seen), 102);
$big = str_repeat('x', 5000000);
$r->set('big', $big);
for ($i = 0; $i < 2; $i++) is($r->get('big') === $big, true);
hits($r);
$many = [];
for ($i = 0; $i < 20; $i++) $many[] = client();
foreach ($many as $one) is($one->get('read'), '1');
step('many');
foreach ($many as $one) $one->disconnect();
foreach (['nearside', 'upstream'] as $which) {
    step("restart $which");
    again(fn() => $r->set('read', '1'));
    hits($r);
}
echo 'predis ', Predis\Client::VERSION, "\n";
