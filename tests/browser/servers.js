// A redis-server and a nearside before it, as processes on free ports, and a client for both.

const { spawn } = require("node:child_process");
const fs = require("node:fs");
const net = require("node:net");
const os = require("node:os");
const path = require("node:path");

const SOON = 20_000;

// The result of check once it is something; fails with what it last threw.
async function until(what, check) {
  const deadline = Date.now() + SOON;
  let last = "";
  for (;;) {
    try {
      const result = await check();
      if (result) return result;
    } catch (error) {
      last = `: ${error.message}`;
    }
    if (Date.now() > deadline) throw new Error(`not within ${SOON / 1000} s: ${what}${last}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

const freePort = () =>
  new Promise((done, fail) => {
    const server = net.createServer();
    server.once("error", fail);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });

// One reply, and where the next begins; undefined while it is not whole.
function parse(data, at) {
  const end = data.indexOf("\r\n", at);
  if (end < 0) return undefined;
  const [kind, rest] = [String.fromCharCode(data[at]), data.toString("latin1", at + 1, end)];
  if (kind === "$") {
    const [from, to] = [end + 2, end + 2 + Number(rest)];
    if (rest === "-1") return [null, from];
    return data.length < to + 2 ? undefined : [data.toString("utf8", from, to), to + 2];
  }
  if (kind === "*") {
    const items = [];
    let next = end + 2;
    for (let i = 0; i < Number(rest); i++) {
      const one = parse(data, next);
      if (!one) return undefined;
      items.push(one[0]);
      next = one[1];
    }
    return [items, next];
  }
  return [kind === "-" ? new Error(rest) : kind === ":" ? Number(rest) : rest, end + 2];
}

class Client {
  static async to(port) {
    const client = new Client();
    client.socket = net.connect(port, "127.0.0.1");
    client.waiting = [];
    let data = Buffer.alloc(0);
    client.socket.on("data", (more) => {
      data = Buffer.concat([data, more]);
      let [at, reply] = [0, undefined];
      while ((reply = parse(data, at))) {
        client.waiting.shift()?.[0](reply[0]);
        at = reply[1];
      }
      data = data.subarray(at);
    });
    const gone = (error) => client.waiting.splice(0).forEach(([, fail]) => fail(error ?? new Error("closed")));
    client.socket.on("error", gone).on("close", () => gone());
    await new Promise((done, fail) => client.socket.once("connect", done).once("error", fail));
    return client;
  }

  send(...words) {
    const parts = words.map((word) => (Buffer.isBuffer(word) ? word : Buffer.from(String(word))));
    const bytes = parts.flatMap((part) => [Buffer.from(`$${part.length}\r\n`), part, Buffer.from("\r\n")]);
    return new Promise((done, fail) => {
      this.waiting.push([done, fail]);
      this.socket.write(Buffer.concat([Buffer.from(`*${parts.length}\r\n`), ...bytes]));
    });
  }

  close() {
    this.socket.destroy();
  }
}

// A process, with what it said.
class Running {
  constructor(command, args, env = {}) {
    const own = Object.entries(process.env).filter(([name]) => !name.startsWith("NEARSIDE_"));
    this.process = spawn(command, args, { env: { ...Object.fromEntries(own), ...env }, stdio: ["ignore", "pipe", "pipe"] });
    this.said = "";
    this.ended = new Promise((done) => this.process.once("close", done).once("error", done));
    for (const stream of [this.process.stdout, this.process.stderr]) stream.on("data", (text) => (this.said += text));
  }

  async end(signal = "SIGKILL") {
    this.process.kill(signal);
    await this.ended;
  }
}

// A server and its nearside; `stop` ends and removes all that belongs to them.
class Pair {
  static async start(more = []) {
    const pair = new Pair();
    pair.folder = fs.mkdtempSync(path.join(os.tmpdir(), "nearside-browser-"));
    pair.more = more;
    [pair.upstream, pair.port, pair.admin] = [await freePort(), await freePort(), await freePort()];
    pair.clients = [];
    await pair.startServer();
    await pair.startNearside();
    return pair;
  }

  get address() {
    return `http://127.0.0.1:${this.admin}/`;
  }

  async startServer() {
    const args = ["--port", this.upstream, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", this.folder];
    this.server = new Running(process.env.REDIS_SERVER ?? "redis-server", args.map(String));
    await until("the server", async () => (await this.once(this.upstream, "PING")) === "PONG");
  }

  async startNearside() {
    const args = ["--listen", this.port, "--admin", this.admin, "--upstream", `redis://127.0.0.1:${this.upstream}`, "--workers", "2"];
    this.nearside = new Running(process.env.NEARSIDE_BIN, [...args, ...this.more].map(String));
    await until("the feed", async () => (await this.once(this.port, "INFO", "nearside")).includes("nearside_feed:up"));
  }

  async once(port, ...words) {
    const client = await Client.to(port);
    try {
      return await client.send(...words);
    } finally {
      client.close();
    }
  }

  async client(port = this.port) {
    const client = await Client.to(port);
    this.clients.push(client);
    return client;
  }

  // Reads these keys over and over, through nearside, until the returned function is called.
  async load(keys, every = 20) {
    const client = await this.client();
    for (const key of keys) await client.send("SET", key, `value of ${key}`);
    const read = () => keys.forEach((key) => client.send("GET", key).catch(() => {}));
    const timer = setInterval(read, every);
    client.socket.on("close", () => clearInterval(timer));
    return () => clearInterval(timer);
  }

  async stop() {
    this.clients.forEach((client) => client.close());
    await this.nearside.end();
    await this.server.end();
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}

module.exports = { Pair, until, SOON };
