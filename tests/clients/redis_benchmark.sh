#!/bin/sh
# redis-benchmark over its usual tests, plain and pipelined: each has to come to an end without an error.
set -eu
out=$(redis-benchmark -h "$1" -p "$2" -q -n 5000 -c 20 2>&1; redis-benchmark -h "$1" -p "$2" -q -n 20000 -c 20 -P 16 -r 1000 2>&1)
lines=$(printf '%s\n' "$out" | tr '\r' '\n' | grep -c 'requests per second')
[ "$lines" -ge 38 ] || { printf '%s\n' "$out"; echo "only $lines tests"; exit 1; }
if printf '%s\n' "$out" | tr '\r' '\n' | grep -iE 'error|could not|closed'; then exit 1; fi
redis-benchmark --version
