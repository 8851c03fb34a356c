# Redis.pm: hits, pipelines, transactions, pub/sub, blocking, scripts, restarts.
use strict;
use warnings;
use Redis;
use Time::HiRes qw(sleep time);
$| = 1;

my ($host, $port) = @ARGV;
sub client { Redis->new(server => "$host:$port", reconnect => 10, every => 20_000) }
sub step { print "@ $_[0]\n"; <STDIN> }
sub is {
    my ($got, $expected) = @_;
    my ($a, $b) = map { defined $_ ? $_ : 'undef' } $got, $expected;
    die 'expected ' . substr($b, 0, 200) . ', got ' . substr($a, 0, 200) unless $a eq $b;
}

sub hits {
    my $r = shift;
    $r->set(read => 1);
    step('reading');
    is($r->get('read'), 1) for 1 .. 10;
    step('read');
}

my $r = client();
hits($r);
$r->flushall;
is($r->incr('users/a'), 1);
is($r->get('users/a'), 1);
is($r->get('users/none'), undef);
my @got;
$r->set("users/$_", $_, sub { }) for 0 .. 99;
$r->get("users/$_", sub { push @got, $_[0] }) for 0 .. 99;
$r->wait_all_responses;
is("@got", join ' ', 0 .. 99);
my $other = client();
$r->watch('users/a');
$other->incr('users/a');
$r->multi;
$r->set('users/a', 'lost');
is($r->exec, undef);
is($r->get('users/a'), 2);
my $sub = client();
my $heard;
$sub->subscribe(news => sub { $heard = $_[0] });
is($r->publish(news => 'hello'), 1);
$sub->wait_for_messages(1) until $heard;
is($heard, 'hello');
$other->rpush(queue => 'job');
is(join(' ', $r->blpop('queue', 5)), 'queue job');
is($r->eval("return redis.call('incr', KEYS[1])", 1, 'users/a'), 3);
is($r->get('users/a'), 3);
my $big = 'x' x 5_000_000;
$r->set(big => $big);
is($r->get('big') eq $big, 1) for 1 .. 2;
hits($r);
my @many = map { client() } 1 .. 20;
is($_->get('read'), 1) for @many;
step('many');
$_->quit for @many;
for my $which (qw(nearside upstream)) {
    step("restart $which");
    my $deadline = time + 15;
    until (eval { $r->set(read => 1); 1 }) { die $@ if time > $deadline; sleep 0.02 }
    hits($r);
}
print "Redis.pm $Redis::VERSION\n";
