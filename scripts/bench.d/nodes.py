"""A cluster of many masters in one process, for what cannot be run as servers here: they hold nothing, and answer what
nearside asks of a node.

    python3 nodes.py FIRST-PORT NUMBER
"""

import asyncio
import sys

SLOTS = 16_384


def bulk(text):
    return f"${len(text)}\r\n{text}\r\n"


class Nodes:
    def __init__(self, first, number):
        self.ports = range(first, first + number)
        self.served = 0

    def ranges(self):
        number = len(self.ports)
        for i, port in enumerate(self.ports):
            yield port, SLOTS * i // number, SLOTS * (i + 1) // number - 1

    def slots(self):
        ranges = [f"*3\r\n:{first}\r\n:{last}\r\n*4\r\n{bulk('127.0.0.1')}:{port}\r\n{bulk(self.name(port))}*0\r\n"
                  for port, first, last in self.ranges()]
        return f"*{len(ranges)}\r\n" + "".join(ranges)

    def nodes(self, of):
        lines = [f"{self.name(port)} 127.0.0.1:{port}@{port + 10000} {'myself,' if port == of else ''}master - 0 0 1 connected "
                 f"{first}-{last}" for port, first, last in self.ranges()]
        return bulk("\n".join(lines) + "\n")

    @staticmethod
    def name(port):
        return f"{port:040}"

    def info(self, port, section):
        text = f"# Server\r\nredis_version:7.0.0\r\nredis_mode:cluster\r\nrun_id:{self.name(port)}\r\n"
        if section == "commandstats":
            # As long as that of a server that is in use.
            self.served += 1
            text = f"cmdstat_info:calls={self.served},usec=1\r\n" + "cmdstat_x:calls=1,usec=1,usec_per_call=1.00\r\n" * 60
        return bulk(text)

    def answer(self, port, words):
        name, rest = words[0].lower(), [word.lower() for word in words[1:]]
        if name == "hello":
            return "%2\r\n+proto\r\n:3\r\n+id\r\n:1\r\n"
        if name == "client":
            return ":1\r\n" if rest[0] == "id" else "+OK\r\n"
        if name == "cluster":
            return {"slots": self.slots, "nodes": lambda: self.nodes(port)}.get(
                rest[0], lambda: bulk("cluster_state:ok\r\ncluster_current_epoch:1\r\n"))()
        if name == "info":
            return self.info(port, rest[0] if rest else "")
        if name == "subscribe":
            return "".join(f">3\r\n+subscribe\r\n{bulk(channel)}:{i + 1}\r\n" for i, channel in enumerate(words[1:]))
        return {"ping": "+PONG\r\n", "command": "*0\r\n", "get": "$-1\r\n", "exists": ":0\r\n", "pttl": ":-2\r\n"}.get(name, "+OK\r\n")

    async def serve(self, port, reader, writer):
        try:
            while head := await reader.readline():
                words = []
                for _ in range(int(head[1:])):
                    length = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(length + 2))[:-2].decode())
                writer.write(self.answer(port, words).encode())
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def main():
    first, number = map(int, sys.argv[1:])
    nodes = Nodes(first, number)
    servers = [await asyncio.start_server(lambda r, w, port=port: nodes.serve(port, r, w), "127.0.0.1", port)
               for port in nodes.ports]
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main())
