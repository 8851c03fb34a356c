// express-session with connect-redis, on node-redis: a visitor's pages read the session, and see what the last one wrote.
const assert = require("node:assert");
const express = require("express");
const session = require("express-session");
const { RedisStore } = require("connect-redis");
const { createClient } = require("redis");
const { step } = require("step.js");
const [host, port] = [process.argv[2], Number(process.argv[3])];

(async () => {
  const client = await createClient({ socket: { host, port } }).connect();
  const store = new RedisStore({ client, disableTouch: true });
  const app = express();
  app.use(session({ store, secret: "not one", resave: false, saveUninitialized: false }));
  app.get("/login", (request, response) => { request.session.views = 0; response.send("in"); });
  app.get("/count", (request, response) => { response.send(String(++request.session.views)); });
  app.get("/look", (request, response) => { response.send(String(request.session.views)); });
  app.get("/logout", (request, response) => request.session.destroy(() => response.send("out")));
  const server = app.listen(0, "127.0.0.1");
  await new Promise((done) => server.on("listening", done));
  const base = `http://127.0.0.1:${server.address().port}`;
  const cookie = (await fetch(`${base}/login`)).headers.get("set-cookie").split(";")[0];
  const page = async (path) => (await fetch(base + path, { headers: { cookie } })).text();
  for (let n = 1; n <= 20; n++) assert.equal(await page("/count"), String(n));
  await step("reading");
  for (let n = 0; n < 10; n++) assert.equal(await page("/look"), "20");
  await step("read");
  assert.equal(await page("/logout"), "out");
  assert.equal(await page("/look"), "undefined");
  console.log("connect-redis 9 with express-session", require("express-session/package.json").version);
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
