"""hiredis' parser on a plain socket: what nearside sends is read by it, whole and in pieces."""

import socket
import sys

import hiredis

from step import step

host, port = sys.argv[1], int(sys.argv[2])


def talk(commands, expected, piece):
    reader = hiredis.Reader()
    with socket.create_connection((host, port)) as s:
        s.settimeout(10)
        s.sendall(b"".join(hiredis.pack_command(command) for command in commands))
        got = []
        while len(got) < len(expected):
            reply = reader.gets()
            if reply is False:
                chunk = s.recv(piece)
                assert chunk, "closed"
                reader.feed(chunk)
                continue
            got.append(str(reply) if isinstance(reply, Exception) else reply)
    assert got == expected, (got, expected)


for piece in (1, 7, 65536):
    talk(
        [("FLUSHALL",), ("SET", "users/a", "1"), ("GET", "users/a"), ("GET", "users/a"), ("LPUSH", "users/a", "x"),
         ("HSET", "h", "f", "v"), ("HGETALL", "h"), ("MULTI",), ("GET", "users/a"), ("EXEC",), ("GET", "none")],
        [b"OK", b"OK", b"1", b"1", "WRONGTYPE Operation against a key holding the wrong kind of value",
         1, [b"f", b"v"], b"OK", b"QUEUED", [b"1"], None],
        piece,
    )
    talk([("SET", "read", "1")], [b"OK"], piece)
    step("reading")
    for _ in range(10):
        talk([("GET", "read")], [b"1"], piece)
    step("read")
print("hiredis", hiredis.__version__)
