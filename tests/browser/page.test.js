// The admin page in a browser: what is shown, in each state, to whom, and that nothing that is shown is ever run.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const { after, before, describe, test: plain } = require("node:test");

const { faults, launch, open, overflow, shows, state } = require("./browser.js");
const { Pair, until } = require("./servers.js");

const test = (name, action) => plain(name, { timeout: 300_000 }, action);

let browser;
before(async () => (browser = await launch()));
after(() => browser?.close());

// Runs with a pair of its own, and with what was opened closed at the end.
const withPair = (more, action) => async (t) => {
  const pair = await Pair.start(more);
  const opened = [];
  const look = async (options, address = pair.address) => {
    const view = await open(browser, address, options);
    opened.push(view);
    return view;
  };
  try {
    await action(pair, look, t);
  } catch (error) {
    error.message += `\nnearside said:\n${pair.nearside.said.slice(-2000)}`;
    throw error;
  } finally {
    await Promise.all(opened.map((view) => view.close()));
    await pair.stop();
  }
};

// The number that stands in an element; NaN while there is none.
const number = (page, selector) =>
  page.locator(selector).evaluate((element) => parseFloat(element.textContent.replaceAll(",", "")));

const grows = (page, selector, least = 0) =>
  page.waitForFunction(
    ([where, than]) => parseFloat(document.querySelector(where).textContent.replaceAll(",", "")) > than, [selector, least],
  );

const rows = (page, table) => page.locator(`#${table} tbody tr`).allInnerTexts();

describe("what is shown", () => {
  test("it loads without a word in the console, asks nobody else, and says that it is empty", withPair([], async (pair, look) => {
    const { page, told, asked } = await look();
    await shows(page, "Ready");
    assert.match(await page.locator("#ratio-note").textContent(), /no reads yet/);
    for (const [table, words] of [["namespaces", /None is configured/], ["hot", /No key/], ["dropped", /Nothing has left/], ["bypasses", /No read/]]) {
      assert.match((await rows(page, table)).join(), words);
    }
    assert.match((await rows(page, "nodes")).join(), new RegExp(`127.0.0.1:${pair.upstream}.*redirect, \\d+ links?.*up`, "s"));
    assert.equal(await page.locator(".chart svg").count(), 4);
    assert.ok(asked.every((url) => url.startsWith(pair.address)), asked.join());
    assert.deepEqual(told, []);
  }));

  test("figures, lines and tables move under load", withPair(["--namespace", "users"], async (pair, look) => {
    const { page, told } = await look();
    await shows(page, "Ready");
    const rest = await pair.load(["users/1", "users/2", "other"]);
    await shows(page, "Fresh");
    await grows(page, "#requests");
    await grows(page, "#ratio", 50);
    await grows(page, "#hit-p99");
    await grows(page, "#memory");
    const requests = await page.locator("#requests-note").textContent();
    await page.waitForFunction((before) => document.querySelector("#requests-note").textContent !== before, requests);
    await page.locator("#hot tbody button", { hasText: "users/1" }).waitFor();
    await page.locator("#namespaces tbody th", { hasText: "users" }).waitFor();
    // A line needs two samples, of five seconds each.
    const drawn = () => page.locator(".chart .line.s0").nth(1).evaluate((line) => line.getTotalLength());
    await until("the line of requests", async () => (await drawn()) > 2);
    assert.match(await page.locator(".chart svg").nth(1).getAttribute("aria-label"), /^Requests, last 15 minutes\. requests: last .*, lowest .*, highest/);
    await until("what left the cache", async () => {
      await pair.once(pair.upstream, "SET", "users/1", "changed elsewhere");
      return /tracking/.test((await rows(page, "dropped")).join());
    });
    rest();
    await until("what is hot and not cached", async () => {
      await pair.once(pair.upstream, "SET", "users/1", "read by nobody");
      return (await rows(page, "hot")).some((row) => /users\/1.*–/s.test(row));
    });
    assert.deepEqual(told, []);
  }));

  test("what is not flushed is told, and what another has written meanwhile", withPair(["--namespace", "users", "--write", "back", "--ack", "memory", "--flush-after", "1h"], async (pair, look) => {
    const { page, told } = await look();
    const row = (words) => page.locator("#namespaces tbody th", { hasText: words }).waitFor();
    await row("all is flushed");
    await pair.once(pair.port, "SET", "users/1", "ours");
    await row(/1 key not flushed, for [\d.]+ (ms|s)/);
    assert.deepEqual(await faults(page), []);
    await pair.once(pair.upstream, "SET", "users/1", "theirs");
    await pair.once(pair.port, "NEARSIDE", "SYNC");
    await row("all is flushed, 1 conflict");
    await page.locator("#events td.warn + td", { hasText: "another has written a dirty key" }).waitFor();
    assert.deepEqual(await faults(page), []);
    assert.deepEqual(told, []);
  }));

  test("a key is asked for, typed and clicked, with any bytes", withPair([], async (pair, look) => {
    const { page, told } = await look();
    const odd = Buffer.from([0x61, 0, 0xff, 0x22, 0x5c, 0x62, 0x25]);
    await pair.load(["plain key", odd]);
    await shows(page, "Fresh");
    const ask = async (words) => {
      await page.locator("#key").fill(words);
      await page.locator("#key").press("Enter");
    };
    const answers = (line) => page.locator("#answer p", { hasText: line }).first().waitFor();
    await until("the key is cached", async () => (await pair.once(pair.port, "NEARSIDE", "WHY", "plain key")).join().includes("cached: yes"));
    await ask("plain key");
    await answers("cached: yes");
    await ask("nobody's key");
    await answers("cached: no");
    await ask('"a\\x00\\xff\\"\\\\b%"');
    await answers("cached: yes");
    await ask("nobody's key");
    await answers("cached: no");
    await page.locator("#hot tbody button", { hasText: "x00" }).click();
    await answers("cached: yes");
    // What the click wrote into the field is the same key.
    await page.locator("#key").press("Enter");
    await answers("cached: yes");
    assert.deepEqual(told, []);
  }));

  test("keys are text, whatever they hold", withPair([], async (pair, look) => {
    const hostile = ["<img src=x onerror=alert(1)>", "\"><script>alert(2)</script>", "</table><h1>mine</h1>", "javascript:alert(3)", "{{7*7}}"];
    const { page, told } = await look();
    await pair.load(hostile);
    for (const key of ["<img src=x onerror=alert(1)>", "</table><h1>mine</h1>"]) {
      await page.locator("#hot tbody button").filter({ hasText: key }).waitFor();
    }
    await page.locator("#hot tbody button").first().click();
    await page.locator("#answer p").first().waitFor();
    assert.equal(await page.locator("img").count(), 1, "that of the head");
    assert.equal(await page.locator("script").count(), 1);
    assert.deepEqual(await page.locator("h1").allTextContents(), ["nearside"]);
    assert.deepEqual(told, []);
  }));

  test("admin-keys = off hides the keys", withPair(["--admin-keys", "off"], async (pair, look) => {
    const { page, told } = await look();
    await pair.load(["secret/1"]);
    await shows(page, "Fresh");
    await grows(page, "#requests");
    assert.match((await rows(page, "hot")).join(), /Keys are hidden/);
    assert.ok(await page.locator("#key").isDisabled());
    assert.ok(await page.locator("#ask button").isDisabled());
    assert.ok(!(await page.content()).includes("secret/1"));
    assert.equal((await fetch(`${pair.address}why?key=secret%2F1`)).status, 403);
    assert.deepEqual(told, []);
  }));
});

describe("states", () => {
  test("the feed's loss turns it red, its return green, and both are told as events", withPair([], async (pair, look, t) => {
    const { page, told } = await look();
    await pair.load(["a", "b"]);
    await shows(page, "Fresh");
    const tone = (is) => page.waitForFunction((tone) => document.body.dataset.tone === tone, is);
    await tone("good");
    const begun = Date.now();
    const [red] = await Promise.all([tone("bad").then(() => Date.now()), pair.server.end()]);
    t.diagnostic(`red after ${red - begun} ms`);
    assert.ok(red - begun < 5_000, `${red - begun} ms`);
    const colour = await page.locator(".state").evaluate((one) => {
      return Promise.all(one.getAnimations().map((each) => each.finished)).then(() => getComputedStyle(one).backgroundColor);
    });
    const [r, g, b] = colour.match(/\d+/g).map(Number);
    assert.ok(r > 120 && g < 80 && b < 80, colour);
    await shows(page, "Disconnected");
    assert.match(await page.locator("#said").textContent(), /^(Disconnected|Feed lost)\./);
    assert.match(await page.title(), /Disconnected/);
    await page.locator("#nodes td.down").waitFor();
    await page.locator("#events td.warn, #events td.error").first().waitFor();
    await pair.startServer();
    await shows(page, "Fresh");
    await tone("good");
    await page.locator("#nodes td.up").waitFor();
    assert.deepEqual(told, []);
  }));

  test("an upstream that says nothing more is not proven fresh", withPair([], async (pair, look) => {
    const { page } = await look();
    await pair.load(["a"]);
    await shows(page, "Fresh");
    pair.server.process.kill("SIGSTOP");
    try {
      await page.waitForFunction(() => document.body.dataset.tone === "bad");
    } finally {
      pair.server.process.kill("SIGCONT");
    }
    await shows(page, "Fresh");
  }));

  test("a drain is shown while it lasts, then that nearside is gone, then the next one", withPair([], async (pair, look) => {
    const { page } = await look();
    await pair.load(["a"]);
    await shows(page, "Fresh");
    // A write under way, so that there is something to wait for.
    await pair.once(pair.upstream, "CLIENT", "PAUSE", "8000", "WRITE");
    const writer = await pair.client();
    writer.send("SET", "a", "late").catch(() => {});
    await until("the write is under way", async () => Number(/blocked_clients:(\d+)/.exec(await pair.once(pair.upstream, "INFO", "clients"))[1]) > 0);
    pair.nearside.process.kill("SIGTERM");
    await shows(page, "Draining");
    assert.equal(await page.locator("body").getAttribute("data-tone"), "warn");
    assert.deepEqual(await faults(page), []);
    await shows(page, "Connection to nearside lost");
    assert.match(await page.locator("#why-state").textContent(), /What is shown is of \d\d:\d\d:\d\d/);
    assert.deepEqual(await faults(page), []);
    await pair.nearside.ended;
    await pair.startNearside();
    await shows(page, "Ready", "Fresh", "Idle");
  }));

  test("the page that is one too many is told so, and served when there is room", withPair([], async (pair, look) => {
    const others = await Promise.all(Array.from({ length: 8 }, () => new Promise((done, fail) => {
      const asked = http.get(`${pair.address}live`, { agent: false }, (response) => {
        response.resume();
        done(asked);
      }).on("error", fail);
    })));
    const { page } = await look();
    await page.locator("#why-state", { hasText: "nearside answers 503" }).waitFor();
    others.forEach((one) => one.on("error", () => {}).destroy());
    await shows(page, "Ready");
  }));

  test("with a token the page is opened once by its address", withPair([], async (pair, look) => {
    const file = path.join(pair.folder, "token");
    fs.writeFileSync(file, "s/sam?\n");
    await pair.nearside.end();
    pair.more = ["--admin-token-file", file];
    await pair.startNearside();
    assert.equal((await fetch(pair.address)).status, 401);
    const { page, told } = await look({}, `${pair.address}?token=${encodeURIComponent("s/sam?")}`);
    await shows(page, "Ready");
    assert.equal(page.url(), pair.address);
    await page.locator("#key").fill("a");
    await page.locator("#key").press("Enter");
    await page.locator("#answer p", { hasText: "cached: no" }).waitFor();
    assert.deepEqual(told, []);
  }));
});

describe("for everybody", () => {
  test("all is reached and read by the keyboard", withPair([], async (pair, look) => {
    const { page, told } = await look();
    await pair.load(["a", "b"]);
    await shows(page, "Fresh");
    await page.locator("#hot tbody button").first().waitFor();
    const visited = [];
    for (let i = 0; i < 25; i++) {
      await page.keyboard.press("Tab");
      visited.push(await page.evaluate(() => {
        const here = document.activeElement;
        if (here === document.body) return "end";
        const ring = here.type === "range" ? here.parentElement.querySelector("svg") : here;
        const style = getComputedStyle(ring);
        const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
        return `${here.id || here.getAttribute("aria-label") || here.textContent.trim()}${seen ? "" : " UNSEEN"}`;
      }));
      if (visited.at(-1) === "end") break;
    }
    assert.deepEqual(visited.filter((name) => name.endsWith("UNSEEN")), []);
    for (const name of ["Skip to the figures", "Hit ratio: moment to read", "Requests: moment to read", "Latency: moment to read", "Proven freshness: moment to read", "key", "Ask", "a"]) {
      assert.ok(visited.includes(name), `${name} in ${visited.join(" | ")}`);
    }
    const slider = page.getByRole("slider", { name: "Requests: moment to read" });
    await until("some samples", async () => Number(await slider.getAttribute("max")) >= 2);
    await slider.focus();
    await page.keyboard.press("End");
    const last = await slider.getAttribute("aria-valuetext");
    await page.keyboard.press("Home");
    const first = await slider.getAttribute("aria-valuetext");
    assert.match(first, /^\d\d:\d\d:\d\d: requests /);
    assert.notEqual(first, last);
    const tip = page.locator(".chart .tip").nth(1);
    assert.ok(await tip.isVisible());
    await page.keyboard.press("Tab");
    assert.ok(!(await tip.isVisible()));
    await page.locator(".plot").nth(1).hover({ position: { x: 400, y: 60 } });
    assert.match(await tip.innerText(), /\d\d:\d\d:\d\d\s+requests/);
    assert.deepEqual(told, []);
  }));

  test("names, landmarks and contrast are right, in each state and scheme", withPair(["--namespace", "users"], async (pair, look) => {
    const views = [];
    for (const colorScheme of ["light", "dark"]) views.push(await look({ colorScheme, reducedMotion: "reduce" }));
    for (const { page } of views) {
      await shows(page, "Ready");
      assert.deepEqual(await faults(page), []);
    }
    await pair.load(["users/1", "<b>"]);
    for (const { page } of views) {
      await shows(page, "Fresh");
      await page.locator("#hot tbody button").first().waitFor();
      await page.getByLabel("Key", { exact: true }).fill("users/1");
      await page.getByRole("button", { name: "Ask" }).click();
      await page.locator("#answer p").first().waitFor();
      assert.deepEqual(await faults(page), []);
      for (const role of ["banner", "main", "contentinfo"]) assert.equal(await page.getByRole(role).count(), 1, role);
      assert.equal(await page.getByRole("meter").count(), 2);
      assert.deepEqual(await page.locator("[aria-live]").evaluateAll((all) => all.map((one) => one.id)), ["said"]);
      assert.equal(await page.locator(".state").evaluate((one) => getComputedStyle(one).transitionDuration), "0s");
    }
    await pair.server.end();
    for (const { page } of views) {
      await shows(page, "Disconnected");
      assert.deepEqual(await faults(page), []);
    }
  }));

  test("who listens hears of changes of the state, not of each second", withPair([], async (pair, look) => {
    const { page } = await look();
    await shows(page, "Ready");
    await page.evaluate(() => {
      window.heard = [];
      new MutationObserver(() => window.heard.push(document.querySelector("#said").textContent)).observe(document.querySelector("#said"), { childList: true, characterData: true, subtree: true });
    });
    await pair.load(["a"]);
    await shows(page, "Fresh");
    const requests = async () => number(page, "#requests-note");
    const begun = await requests();
    await until("several seconds of figures", async () => (await requests()) > begun + 150);
    const heard = await page.evaluate(() => window.heard);
    assert.equal(heard.length, 1, heard.join(" | "));
    assert.match(heard[0], /^Fresh\./);
  }));

  test("it fits 360, 768, 1,400 and 2,560 pixels, with long words too", withPair(["--namespace", "a".repeat(60)], async (pair, look) => {
    const { page } = await look();
    await pair.load([`${"a".repeat(60)}/${"long".repeat(40)}`, "b"]);
    await shows(page, "Fresh");
    await page.locator("#hot tbody button", { hasText: "longlong" }).waitFor();
    for (const width of [360, 768, 1400, 2560]) {
      await page.setViewportSize({ width, height: 800 });
      await until(`${width} px without scrolling sideways`, async () => (await overflow(page)) <= 0);
      const cut = await page.locator(".scroll").evaluateAll((all) => all.filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.querySelector("caption").textContent));
      assert.deepEqual(cut, [], `at ${width} px`);
      assert.equal(await state(page), "Fresh");
    }
  }));
});
