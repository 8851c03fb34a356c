// The browser, and how the page is looked at.

const fs = require("node:fs");
const { chromium } = require("playwright-core");

const { SOON } = require("./servers.js");

// So that it asks nobody but the page's own server.
const QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];

const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: QUIET });

const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

// A page with what its console said, and what it asked for.
async function open(browser, address, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1400, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(SOON);
  const told = [];
  const asked = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && told.push(message.text()));
  page.on("pageerror", (error) => told.push(error.message));
  page.on("dialog", (dialog) => {
    told.push(`a dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("request", (request) => asked.push(request.url()));
  await page.goto(address);
  return { page, told, asked, close: () => context.close() };
}

const state = (page) => page.locator("#state").textContent();

// Waits until the state is one of these words.
const shows = (page, ...words) =>
  page.waitForFunction((all) => all.includes(document.querySelector("#state").textContent), words);

// What the checker for accessibility finds, in words.
async function faults(page) {
  const session = await page.context().newCDPSession(page);
  // By the protocol, which the page's content security policy does not bind.
  await session.send("Runtime.evaluate", { expression: `${axe};0` });
  const found = await page.evaluate(async () => {
    // What is on its way from one colour to another has none yet.
    await Promise.all(document.getAnimations().map((one) => one.finished.catch(() => {})));
    const only = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
    const { violations } = await axe.run(document, { runOnly: only });
    return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.target} ${node.failureSummary}`));
  });
  await session.detach();
  return found;
}

const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

module.exports = { launch, open, state, shows, faults, overflow };
