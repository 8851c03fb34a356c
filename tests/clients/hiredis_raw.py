"""hiredis' parser on a plain socket: what nearside sends is read by it, whole and in pieces."""

import socket
import sys

import hiredis

host, port = sys.argv[1], int(sys.argv[2])


def talk(commands, expected, step):
    reader = hiredis.Reader()
    with socket.create_connection((host, port)) as s:
        s.settimeout(10)
        s.sendall(b"".join(hiredis.pack_command(command) for command in commands))
        got = []
        while len(got) < len(expected):
            reply = reader.gets()
            if reply is False:
                chunk = s.recv(step)
                assert chunk, "closed"
                reader.feed(chunk)
                continue
            got.append(str(reply) if isinstance(reply, Exception) else reply)
    assert got == expected, (got, expected)


for step in (1, 7, 65536):
    talk(
        [("FLUSHALL",), ("SET", "users/a", "1"), ("GET", "users/a"), ("GET", "users/a"), ("LPUSH", "users/a", "x"),
         ("HSET", "h", "f", "v"), ("HGETALL", "h"), ("MULTI",), ("GET", "users/a"), ("EXEC",), ("GET", "none")],
        [b"OK", b"OK", b"1", b"1", "WRONGTYPE Operation against a key holding the wrong kind of value",
         1, [b"f", b"v"], b"OK", b"QUEUED", [b"1"], None],
        step,
    )
print("hiredis", hiredis.__version__)
