#!/bin/sh
# redis-cli: single commands, -3, --pipe, --scan, --bigkeys, --memkeys, MONITOR, SUBSCRIBE, --stat, --latency, -r.
set -eu
host=$1 port=$2
cli() { redis-cli -h "$host" -p "$port" "$@"; }
is() { [ "$1" = "$2" ] || { echo "expected '$2', got '$1'" >&2; exit 1; }; }

# Asks the one who runs this script (see run).
step() { echo "@ $1"; read -r _ || :; }
hits() {
    cli "$@" set read 1 >/dev/null
    step reading
    for _ in 1 2 3 4 5 6 7 8 9 10; do is "$(cli "$@" get read)" 1; done
    step read
}

is "$(cli flushall)" OK
hits
hits -3
hits -2
is "$(cli set users/a 1)" OK
is "$(cli get users/a)" 1
is "$(cli -3 get users/a)" 1
is "$(cli -3 --no-raw get users/none)" "(nil)"
cli hset h f v >/dev/null
is "$(cli -3 --no-raw hgetall h)" '1# "f" => "v"'
is "$(cli -n 2 --no-raw get users/a)" "(nil)"
is "$(cli -r 5 incr users/n | tail -n 1)" 5
is "$(printf 'MULTI\nINCR users/n\nGET users/n\nEXEC\n' | cli | tail -n 1)" 6
is "$(cli --eval /dev/stdin users/e , 7 <<'L'
return redis.call('set', KEYS[1], ARGV[1])
L
)" OK
is "$(cli get users/e)" 7
i=0
while [ $i -lt 20000 ]; do printf '*3\r\n$3\r\nSET\r\n$%d\r\npipe/%d\r\n$1\r\nv\r\n' $((5 + ${#i})) $i; i=$((i + 1)); done |
    cli --pipe | grep -q 'errors: 0, replies: 20000'
is "$(cli --scan --pattern 'pipe/*' | sort -u | wc -l | tr -d ' ')" 20000
cli --bigkeys -i 0 | grep -q 'Biggest string found'
cli --memkeys -i 0 | grep -q '[sS]ampled 20005 keys'
out=$(mktemp)
trap 'rm -f "$out"; kill $pid 2>/dev/null || :' EXIT
cli monitor >"$out" & pid=$!
n=0
until grep -q '"set" "seen"' "$out"; do cli set seen 1 >/dev/null; n=$((n + 1)); [ $n -lt 500 ]; done
kill $pid
cli -3 subscribe news >"$out" & pid=$!
n=0
until grep -q hello "$out"; do cli publish news hello >/dev/null; n=$((n + 1)); [ $n -lt 500 ]; done
kill $pid
cli --no-raw nosuch 2>&1 | grep -q 'ERR unknown command'
hits
redis-cli --version
