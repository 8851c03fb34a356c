// The pictures in docs/images: the page under some minutes of mixed load (MINUTES, 5 if not given), empty, without its
// upstream, about to end, dark, and narrow.

const { execFileSync } = require("node:child_process");
const path = require("node:path");

const { launch, open, shows } = require("./browser.js");
const { Pair } = require("./servers.js");

const IMAGES = path.join(__dirname, "..", "..", "docs", "images");
const minutes = Number(process.env.MINUTES ?? 5);

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// Few keys are read often and many seldom.
const often = (count) => Math.floor(count ** Math.random()) - 1;

// Reads, writes here and elsewhere, transactions, and keys that expire; more and less of it in turns.
async function load(pair) {
  const [reader, writer, elsewhere] = [await pair.client(), await pair.client(), await pair.client(pair.upstream)];
  const send = (client, ...words) => client.send(...words).catch(() => {});
  for (let i = 0; i < 400; i++) {
    await send(writer, "SET", `users/${i}`, "x".repeat(40 + (i * 37) % 900));
    await send(writer, "SET", `items/${i}`, "y".repeat(30 + (i * 53) % 400));
  }
  await send(writer, "SET", "feature-flags", "z".repeat(2000));
  let beats = 0;
  const timer = setInterval(() => {
    beats++;
    const strength = 6 + 3 * Math.sin(beats / 400) + 2 * Math.sin(beats / 67) + 2 * Math.random();
    for (let i = 0; i < strength; i++) {
      send(reader, "GET", i % 5 ? `users/${often(400)}` : i % 2 ? "feature-flags" : `items/${often(400)}`);
    }
    if (beats % 4 === 0) send(writer, "SET", `users/${often(400)}`, "x".repeat(200));
    if (beats % 7 === 0) send(elsewhere, "SET", `items/${often(400)}`, "y".repeat(100));
    if (beats % 50 === 0) {
      send(writer, "MULTI");
      send(writer, "GET", "users/1");
      send(writer, "EXEC");
      send(writer, "SET", "session:9f31", "s", "PX", "400");
      send(reader, "GET", "session:9f31");
    }
  }, 25);
  return () => clearInterval(timer);
}

// A file of few colours is a quarter as large.
function shrink(file) {
  try {
    execFileSync("pngquant", ["--force", "--output", file, "--strip", "128", file]);
  } catch {
    console.log(`${file} is larger than it might be: pngquant is not there`);
  }
}

async function main() {
  const browser = await launch();
  const pair = await Pair.start(["--namespace", "users", "--namespace", "items", "--max-memory", "4mb"]);
  const picture = async (page, name, options = {}) => {
    const file = path.join(IMAGES, `${name}.png`);
    await page.screenshot({ path: file, animations: "disabled", ...options });
    shrink(file);
  };
  let rest = () => {};
  try {
    const { page } = await open(browser, pair.address, { viewport: { width: 1280, height: 800 } });
    await shows(page, "Ready");
    await sleep(3000);
    await picture(page, "empty");
    rest = await load(pair);
    await sleep(minutes * 60_000);
    await picture(page, "page");
    await page.locator("#hot tbody button").nth(1).click();
    await page.locator("#answer p").first().waitFor();
    await page.locator(".plot").nth(2).hover({ position: { x: 480, y: 90 } });
    await sleep(300);
    await picture(page, "full", { fullPage: true });
    const dark = await open(browser, pair.address, { viewport: { width: 1280, height: 800 }, colorScheme: "dark" });
    await shows(dark.page, "Fresh");
    const narrow = await open(browser, pair.address, { viewport: { width: 360, height: 1500 } });
    await shows(narrow.page, "Fresh");
    await sleep(6000);
    await picture(dark.page, "dark");
    await picture(narrow.page, "narrow");
    await page.mouse.move(0, 0);
    await page.evaluate(() => window.scrollTo(0, 0));
    await pair.server.end();
    await shows(page, "Disconnected");
    await sleep(12_000);
    await picture(page, "lost");
    await pair.startServer();
    await shows(page, "Fresh");
    await sleep(8000);
    // A write under way, so that there is something to wait for.
    await pair.once(pair.upstream, "CLIENT", "PAUSE", "8000", "WRITE");
    (await pair.client()).send("SET", "items/1", "late").catch(() => {});
    await sleep(300);
    pair.nearside.process.kill("SIGTERM");
    await shows(page, "Draining");
    await sleep(2500);
    await picture(page, "draining");
  } finally {
    rest();
    await browser.close();
    await pair.stop();
  }
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
