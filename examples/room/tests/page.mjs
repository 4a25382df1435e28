// The page of the room in a browser: two pages and a terminal talk, connections break, members are rude, and a reader has no mouse.
//
// usage: node page.mjs ROOM     the room's program; a line for each test, and its status is theirs together
//
// PLAYWRIGHT names a folder with node_modules/playwright-core, CHROMIUM the browser, SHOTS the folder for the pictures, ONLY a
// part of the names of the tests that are wanted, LIMIT the ms of a wait; with BAIL the first failure is the last. Loopback only.
// Nothing here waits for a time to pass: each wait is for something to be seen, with a limit.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";

const program = resolve(process.argv[2] ?? "target/release/room");
const shots = resolve(process.env.SHOTS ?? "target/page");
const { chromium } = createRequire(resolve(process.env.PLAYWRIGHT ?? "target/page") + "/")("playwright-core");
const LIMIT = Number(process.env.LIMIT ?? 10_000);

/** Waits until it holds; what is thrown meanwhile counts as no. */
async function until(what, holds, limit = LIMIT) {
  const end = Date.now() + limit;
  for (let error = "";;) {
    try {
      if (await holds()) return;
    } catch (thrown) {
      error = `: ${thrown.message}`;
    }
    if (Date.now() > end) throw new Error(`${what}: not in ${limit} ms${error}`);
    await new Promise((next) => setTimeout(next, 20));
  }
}

// ------------------------------------------------------------------------------------------------------ the room

const place = mkdtempSync(join(tmpdir(), "room-page-"));
const rooms = new Set();

class Room {
  constructor() {
    this.db = join(mkdtempSync(join(place, "db-")), "room.db");
    this.lines = this.web = "127.0.0.1:0"; // until it has started: then it keeps its ports
  }

  async start() {
    const options = ["--lines", this.lines, "--web", this.web, "--inspect", "no", "--db", this.db];
    this.process = spawn(program, options, { cwd: place, stdio: ["ignore", "pipe", "inherit"] });
    rooms.add(this);
    this.ended = new Promise((end) => this.process.once("close", end));
    const said = [];
    createInterface({ input: this.process.stdout }).on("line", (line) => said.push(line));
    await until("the room tells where it listens", () => {
      assert.equal(this.process.exitCode, null, `the room ended: ${said}`);
      const [lines, web] = [/^listening on (\S+)$/m, /http:\/\/([^/\s]+)\/(\s|$)/m].map((at) => said.join("\n").match(at)?.[1]);
      [this.lines, this.web] = [lines ?? this.lines, web ?? this.web];
      return lines && web;
    });
    this.url = `http://${this.web}/`;
    return this;
  }

  /** SIGINT: a goodbye; SIGKILL: none. */
  async stop(signal = "SIGINT") {
    this.process.kill(signal);
    await this.ended;
    rooms.delete(this);
  }
}

/** A member who speaks lines, as by nc. */
class Terminal {
  static async enter(room, name) {
    const guest = new Terminal();
    const [host, port] = room.lines.split(":");
    guest.heard = "";
    guest.socket = net.connect({ host, port: Number(port) }).setEncoding("utf8");
    guest.socket.on("data", (data) => (guest.heard += data)).on("error", () => {});
    await guest.hears("Your name?");
    guest.says(name);
    await guest.hears(`Welcome, ${name}!`);
    return guest;
  }
  says(line) {
    this.socket.write(`${line}\n`);
  }
  hears(text) {
    return until(`the terminal hears ${JSON.stringify(text)}`, () => this.heard.includes(text));
  }
}

/** Stands between a page and the room, and can be a bad connection. */
class Wire {
  constructor(room) {
    this.pairs = new Set();
    this.isDeafUp = this.isDeafDown = false;
    this.server = net.createServer((page) => {
      const [host, port] = room.web.split(":");
      const pair = { page, room: net.connect({ host, port: Number(port) }) };
      this.pairs.add(pair);
      page.on("data", (data) => this.isDeafUp || pair.room.write(data)).on("error", () => {});
      pair.room.on("data", (data) => this.isDeafDown || page.write(data)).on("error", () => {});
      page.on("close", () => pair.isKept || pair.room.destroy());
      pair.room.on("close", () => page.destroy());
    });
  }
  async start() {
    await new Promise((done) => this.server.listen(0, "127.0.0.1", done));
    this.url = `http://127.0.0.1:${this.server.address().port}/`;
    return this;
  }
  /** Breaks all connections; of those that are kept the room notices nothing yet. */
  cut({ isKept = false } = {}) {
    const cut = [...this.pairs];
    this.pairs.clear();
    this.isDeafUp = this.isDeafDown = false;
    for (const pair of cut) {
      pair.isKept = isKept;
      pair.page.destroy();
    }
    return () => cut.forEach((pair) => pair.room.destroy());
  }
}

// ------------------------------------------------------------------------------------------------------ the pages

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});

/** What a browser complained of, in any page. That the room is away it says too, and that is none of the page's. */
const complaints = [];
const isOfTheWire = (text) => /WebSocket connection to .*failed|WebSocket.*(ERR_CONNECTION|closed before)/.test(text);

async function open(url, options = {}, prepare = () => {}) {
  const context = await browser.newContext({ viewport: { width: 1000, height: 700 }, locale: "en-GB", reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(LIMIT);
  page.mayLoseTheWire = false;
  page.on("console", (message) => {
    if (!["error", "warning"].includes(message.type()) || (page.mayLoseTheWire && isOfTheWire(message.text()))) return;
    complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("dialog", (dialog) => {
    if (dialog.type() !== "beforeunload") complaints.push(`a dialog: ${dialog.message()}`);
    dialog.accept();
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:")) complaints.push(`a request to ${request.url()}`);
  });
  await page.addInitScript(() => addEventListener("securitypolicyviolation",
    (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`)));
  await prepare(page);
  await page.goto(url);
  return page;
}

async function enter(url, name, options, prepare) {
  const page = await open(url, options, prepare);
  await page.getByLabel("Your name").fill(name);
  await page.keyboard.press("Enter");
  await says(page, `Connected as ${name}.`);
  return page;
}

const say = async (page, text) => {
  await field(page).fill(text);
  await page.keyboard.press("Enter");
};
const says = (page, text) => until(`the status says ${text}`, async () => (await page.getByRole("status").innerText()).includes(text));
const rows = (page, text) => page.getByRole("log").locator("> div").filter({ hasText: text });
const sees = (page, text) => until(`the page shows ${text}`, async () => (await rows(page, text).count()) > 0);
const once = async (page, text) => {
  await sees(page, text);
  assert.equal(await rows(page, text).count(), 1, `${text}: once`);
};
const waiting = (page) => page.getByRole("group", { name: "Not confirmed" }).locator("> div");
const field = (page) => page.getByLabel("Message", { exact: true });
const hasFocus = (page, id) => until(`the focus is in #${id}`, () => page.evaluate((id) => document.activeElement.id === id, id));
const nothingWaits = (page) => until("all is confirmed", async () => (await waiting(page).count()) === 0);
const names = async (page) => (await page.getByRole("complementary").getByRole("listitem").locator("bdi").allInnerTexts()).sort();

// ------------------------------------------------------------------------------------------------------- the tests

const tests = {
  async "the door: by keyboard, with a reason, once"(room) {
    const page = await open(room.url);
    await hasFocus(page, "name");
    await page.keyboard.type("a<b>");
    await page.keyboard.press("Enter");
    await until("the reason", async () => (await page.getByRole("alert").innerText()).includes("none of < > *"));
    await page.keyboard.type("Dora"); // what was wrong is selected, so typing replaces it
    await page.keyboard.press("Enter");
    await says(page, "Connected as Dora.");
    await hasFocus(page, "say");
    await page.reload();
    await says(page, "Connected as Dora."); // it is not asked for again
  },

  async "two pages and a terminal talk"(room) {
    const [ann, bob] = [await enter(room.url, "Ann"), await enter(room.url, "Bob")];
    const tom = await Terminal.enter(room, "Tom");
    await say(ann, "hello from Ann");
    await tom.hears("<Ann> hello from Ann");
    await say(bob, "hello from Bob");
    await tom.hears("<Bob> hello from Bob");
    tom.says("hello from Tom");
    for (const page of [ann, bob]) {
      for (const name of ["Ann", "Bob", "Tom"]) {
        await once(page, `hello from ${name}`);
        assert.equal(await rows(page, `hello from ${name}`).locator(".name").innerText(), name);
      }
      await until("all three are here", async () => (await names(page)).join() === "Ann,Bob,Tom");
      assert.equal(await page.getByRole("heading", { name: "3 here" }).count(), 1);
      await nothingWaits(page);
    }
    const time = rows(ann, "hello from Tom").locator("time");
    assert.ok(Math.abs(Date.parse(await time.getAttribute("datetime")) - Date.now()) < 60_000);
    assert.match(await time.getAttribute("title"), /\d{4}/);
    // The same name has the same colour in both.
    const colour = (page) => rows(page, "hello from Tom").locator(".name").evaluate((name) => getComputedStyle(name).color);
    assert.equal(await colour(ann), await colour(bob));
    tom.socket.destroy();
    await until("Tom has left", async () => (await names(ann)).join() === "Ann,Bob");
  },

  async "what does something, what is private, and notices"(room) {
    const [ann, bob] = [await enter(room.url, "Ann"), await enter(room.url, "Bob")];
    await say(ann, "/me waves at all");
    for (const page of [ann, bob]) assert.match(await (await sees(page, "waves at all"), rows(page, "waves at all")).getAttribute("class"), /does/);
    await say(ann, "/msg Bob a secret");
    for (const page of [ann, bob]) assert.match(await (await sees(page, "a secret"), rows(page, "a secret")).getAttribute("class"), /private/);
    await nothingWaits(ann);
    await say(ann, "/frobnicate");
    await sees(ann, "there is no command /frobnicate");
    assert.match(await rows(ann, "there is no command").getAttribute("class"), /notice/);
    await say(ann, "//is a text");
    await once(bob, "/is a text");
    await nothingWaits(ann);
    await say(bob, "/who");
    await until("who is here", async () => /2 in #lobby: .*(Ann, Bob|Bob, Ann)/.test(await rows(bob, "in #lobby").first().innerText()));
    await say(ann, "/nick Anna");
    await says(ann, "Connected as Anna.");
    await sees(bob, "Ann is now Anna");
    await until("the new name", async () => (await names(bob)).join() === "Anna,Bob");
    await say(ann, "x".repeat(1025));
    await says(ann, "Too long: 1025 bytes");
    assert.equal((await field(ann).inputValue()).length, 1025);
  },

  async "channels"(room) {
    const [ann, bob] = [await enter(room.url, "Ann"), await enter(room.url, "Bob")];
    await say(ann, "in the lobby");
    await once(bob, "in the lobby");
    await say(bob, "/join workshop");
    await until("the heading", async () => (await bob.getByRole("heading", { level: 1 }).innerText()).includes("workshop"));
    assert.match(await bob.title(), /#workshop/);
    assert.equal(await rows(bob, "in the lobby").count(), 0);
    await until("alone", async () => (await names(bob)).join() === "Bob");
    await say(bob, "in the workshop");
    await once(bob, "in the workshop");
    await say(ann, "again in the lobby");
    await once(ann, "again in the lobby");
    assert.equal(await rows(ann, "in the workshop").count(), 0);
    await bob.reload();
    await says(bob, "Connected as Bob.");
    await once(bob, "in the workshop");
    await say(bob, "/join lobby");
    for (const text of ["again in the lobby"]) await once(bob, text);
    await once(bob, /(?<!again )in the lobby/);
  },

  async "what members send is text"(room) {
    const page = await enter(room.url, "Ann");
    await page.evaluate(() => { window.attacked = 0; });
    const before = await page.evaluate(() => document.querySelectorAll("*").length - document.querySelectorAll("#room *").length);
    const lines = [
      `<img src=x onerror="attacked=1">`, `<script>attacked=1</script>`, `<svg onload=attacked=1>`, `"><a href=javascript:attacked=1>a</a>`,
      `javascript:attacked=1`, `&lt;b&gt; &amp; &#60;`, `</div></body><iframe srcdoc="<script>parent.attacked=1</script>">`,
    ];
    const mallory = await Terminal.enter(room, `"onclick='attacked=1'`);
    for (const line of lines) mallory.says(line);
    for (const line of lines) {
      await until(`${line} is text`, async () => (await page.locator("#lines .text").allInnerTexts()).includes(line));
    }
    const others = await Terminal.enter(room, "javascript:attacked()");
    others.says("see https://example.org/a?b=<c>, or javascript:attacked=1, or http://x\u202e/fdp.exe");
    await sees(page, "see https://example.org");
    const links = await page.locator("#lines a").evaluateAll((links) => links.map((link) => [link.textContent, link.getAttribute("href")]));
    for (const [text, href] of links) {
      assert.match(href, /^https?:\/\//);
      assert.equal(text, href);
    }
    assert.equal(links[0][1], "https://example.org/a?b=");
    // What turns text around turns nothing but itself, and a thousand letters without a space fit.
    others.says("\u202egnorw si siht");
    others.says(`wide${"w".repeat(1000)}`);
    await sees(page, "gnorw si siht");
    await sees(page, "wwww");
    const text = page.locator("#lines .text").last();
    assert.equal(await text.evaluate((text) => getComputedStyle(text).unicodeBidi), "isolate");
    assert.ok(await page.evaluate(() => document.querySelector("#scroll").scrollWidth <= document.querySelector("#scroll").clientWidth));
    // Our own too, as the room gives them back.
    for (const own of ["<b>mine</b> \u202e \u200b done", "a\tb"]) await say(page, own);
    await nothingWaits(page);
    // Elements of the kinds that the page makes, and none else; no attribute that is a program.
    const kinds = await page.evaluate(() => [...new Set([...document.querySelectorAll("#lines *, #names *")].map((e) => e.localName))].sort().join());
    assert.equal(kinds, "a,bdi,div,li,small,span,time");
    const attributes = await page.evaluate(() => [...document.querySelectorAll("*")].flatMap((e) => e.getAttributeNames()));
    assert.deepEqual(attributes.filter((name) => /^on|^style$/.test(name)), []);
    assert.equal(await page.evaluate(() => document.querySelectorAll("*").length - document.querySelectorAll("#room *").length), before);
    assert.equal(await page.evaluate(() => window.attacked), 0);
  },

  async "the policy holds: no other script, style, host or form"(room) {
    const answer = await fetch(room.url);
    const policy = answer.headers.get("content-security-policy");
    const rules = ["default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "connect-src 'self'", "base-uri 'none'",
      "form-action 'none'", "frame-ancestors 'none'"];
    for (const rule of rules) assert.ok(policy.includes(rule), rule);
    assert.doesNotMatch(policy, /unsafe|\*/);
    const text = await answer.text();
    assert.equal(text.match(/<script/g).length, 1);
    assert.equal(text.match(/<style/g).length, 1);
    assert.doesNotMatch(text, /innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|\sstyle=|\son[a-z]+="/);
  },

  async "unread lines are counted, marked, and jumped to"(room) {
    const page = await enter(room.url, "Ann");
    const tom = await Terminal.enter(room, "Tom");
    // Enough to scroll, told to the page as the room tells it: the room itself lets nobody say so much at once.
    await page.evaluate(() => {
      for (let i = 0; i < 1500; i++) heard.line({ id: `test-${i}`, channel, from: `m${i % 5}`, text: `line ${i}.`, at: Date.now(), does: false });
      heard.line({ id: "test-1499", channel, from: "m1", text: "line twice", at: Date.now(), does: false });
    });
    assert.equal(await page.evaluate(() => lines.childElementCount), 1000);
    assert.equal(await rows(page, "line twice").count(), 0);
    const isAtEnd = () => page.evaluate(() => scroller.scrollTop > -8);
    assert.ok(await isAtEnd());
    const jump = page.locator("#jump");
    assert.ok(await jump.isHidden());
    await field(page).press("PageUp");
    await until("the button", () => jump.isVisible());
    const where = () => rows(page, "line 1480.").evaluate((row) => row.getBoundingClientRect().top);
    const before = await where();
    tom.says("first unread");
    tom.says("second unread");
    await until("the title counts", async () => (await page.title()).startsWith("(2) "));
    assert.match(await jump.innerText(), /2 new/);
    assert.ok(Math.abs((await where()) - before) < 2, "what is read stays where it is");
    assert.match(await page.locator("#marker + *, #marker + .day + *").innerText(), /first unread/);
    await jump.press("Enter");
    await until("the end", isAtEnd);
    await until("nothing is unread", async () => !(await page.title()).startsWith("("));
    assert.ok(await jump.isHidden());
    await hasFocus(page, "say");
    // In a tab that nobody sees.
    const see = (isHidden) => page.evaluate((isHidden) => {
      Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }, isHidden);
    await see(true);
    tom.says("third unread");
    await until("the title counts", async () => (await page.title()).startsWith("(1) "));
    await see(false);
    await until("nothing is unread", async () => !(await page.title()).startsWith("("));
  },

  async "a restart: it says so, comes back, and shows nothing twice"(room) {
    const page = await enter(room.url, "Ann");
    const tom = await Terminal.enter(room, "Tom");
    await say(page, "before the restart");
    await tom.hears("before the restart");
    await once(page, "before the restart");
    page.mayLoseTheWire = true;
    for (const signal of ["SIGINT", "SIGKILL"]) {
      await room.stop(signal);
      await says(page, "Trying again in");
      await say(page, `typed while ${signal}`);
      await says(page, "what you typed stays in the field");
      assert.equal(await field(page).inputValue(), `typed while ${signal}`);
      await room.start();
      const eve = await Terminal.enter(room, "Eve");
      eve.says(`said after ${signal}`);
      await eve.hears(`<Eve> said after ${signal}`);
      await page.evaluate(() => dispatchEvent(new Event("online"))); // at once, however long it would have waited
      await says(page, "Connected again as Ann.");
      await once(page, `said after ${signal}`);
      await once(page, "before the restart");
      assert.equal(await rows(page, `typed while ${signal}`).count(), 0);
      await field(page).press("Enter");
      await eve.hears(`<Ann> typed while ${signal}`);
      await once(page, `typed while ${signal}`);
      await nothingWaits(page);
      await until("who is here", async () => (await names(page)).join() === "Ann,Eve");
      eve.socket.destroy();
    }
    // By itself too, without being told to.
    await room.stop();
    await says(page, "Trying again in");
    await room.start();
    await until("it comes back", async () => (await page.getByRole("status").innerText()).startsWith("Connected again"), 40_000);
    page.mayLoseTheWire = false;
  },

  async "a line whose connection breaks is neither lost nor said twice"(room) {
    const wire = await new Wire(room).start();
    const page = await enter(wire.url, "Ann");
    const tom = await Terminal.enter(room, "Tom");
    page.mayLoseTheWire = true;
    // It has not reached the room: it is offered, and said when that is asked for.
    wire.isDeafUp = true;
    await say(page, "never arrived");
    await until("it waits", async () => (await waiting(page).count()) === 1);
    wire.cut();
    await until("it is offered", async () => (await waiting(page).getByText("Not said").count()) === 1);
    assert.equal(await rows(page, "never arrived").count(), 0);
    assert.doesNotMatch(tom.heard, /never arrived/);
    await waiting(page).getByRole("button", { name: "Send again" }).press("Enter");
    await tom.hears("<Ann> never arrived");
    await once(page, "never arrived");
    await nothingWaits(page);
    await hasFocus(page, "say");
    // It has, but nothing came back: it is found in what is told after the reconnect.
    wire.isDeafDown = true;
    await say(page, "arrived unconfirmed");
    await tom.hears("<Ann> arrived unconfirmed");
    assert.equal(await waiting(page).count(), 1);
    wire.cut();
    await once(page, "arrived unconfirmed");
    await nothingWaits(page);
    await until("it is back", async () => (await page.getByRole("status").innerText()).startsWith("Connected"));
    assert.equal(tom.heard.split("arrived unconfirmed").length, 2);
    // The room does not know yet that we are gone: our name is taken, and it is tried again.
    const end = wire.cut({ isKept: true });
    await says(page, "Ann is here already");
    end();
    await says(page, "Connected again as Ann.");
    await until("once here", async () => (await names(page)).join() === "Ann,Tom");
    page.mayLoseTheWire = false;
    wire.server.close();
  },

  async "the back-off: twice as long each time, at once when there is a reason"(room) {
    const page = await enter(room.url, "Ann", {}, (page) => page.clock.install());
    page.mayLoseTheWire = true;
    let tried = 0;
    page.on("websocket", () => tried++);
    await page.clock.pauseAt(Date.now() + 60_000);
    await room.stop();
    for (let i = 0; i < 8; i++) {
      const most = Math.min(30, 0.5 * 2 ** i);
      await says(page, "Trying again in");
      const seconds = Number((await page.getByRole("status").innerText()).match(/in (\d+) s/)[1]);
      assert.ok(seconds <= Math.max(1, most) && seconds >= Math.floor(most / 2), `${seconds} s at try ${i}`);
      const before = tried;
      await page.clock.runFor(Math.floor(most * 500) - 1);
      assert.equal(tried, before, "not earlier than half of it");
      await page.clock.runFor(Math.ceil(most * 500) + 2);
      await until("it tries", () => tried === before + 1);
      await until("it has failed", () => page.evaluate(() => socket === null));
    }
    // Time stands still from here on.
    const reasons = {
      online: () => page.evaluate(() => dispatchEvent(new Event("online"))),
      visible: () => page.evaluate(() => document.dispatchEvent(new Event("visibilitychange"))),
      button: () => page.getByRole("button", { name: "Try now" }).press("Enter"),
    };
    for (const [reason, happens] of Object.entries(reasons)) {
      await says(page, "Trying again in");
      await room.start();
      await happens();
      await says(page, "Connected again as Ann.");
      await hasFocus(page, "say");
      if (reason !== "button") await room.stop();
    }
  },

  async "what the room refuses is not lost"(room) {
    const page = await enter(room.url, "Ann");
    const tom = await Terminal.enter(room, "Tom");
    // More at once than a member may say: some of it is refused.
    const all = Array.from({ length: 13 }, (_, i) => `line number ${i}.`);
    for (const line of all) await say(page, line);
    await say(page, "/msg Nobody are you there");
    // The first that is said again shows that those before it were refused.
    const notices = () => page.locator("#lines .notice").count();
    for (let i = 0; (await rows(page, "and more").count()) === 0; i++) {
      const before = await notices();
      all.push(`and more ${i}.`);
      await say(page, all.at(-1));
      await until("it is said, or refused", async () => (await rows(page, "and more").count()) > 0 || (await notices()) > before);
    }
    await until("refused lines are offered", async () => (await page.locator(".waiting").getByText("Not said.").count()) > 0, 5_000);
    const again = () => waiting(page).getByRole("button", { name: "Send again" });
    await until("each is said or offered", async () => (await again().count()) === (await waiting(page).count()), 15_000);
    const offered = await waiting(page).locator(".text").allInnerTexts();
    assert.ok(offered.includes("/msg Nobody are you there"));
    assert.ok(offered.length > 1);
    for (const line of all) assert.equal((await rows(page, line).count()) + offered.filter((text) => text === line).length, 1, line);
    await waiting(page).filter({ hasText: "Nobody" }).getByRole("button", { name: "Discard" }).press("Enter");
    await until("all are said", async () => {
      if ((await waiting(page).count()) === 0) return true;
      if ((await again().count()) === (await waiting(page).count())) await again().first().press("Enter");
      return false;
    }, 60_000);
    await says(page, "Connected as Ann.");
    for (const line of all) {
      await once(page, line);
      await tom.hears(line);
      assert.equal(tom.heard.split(line).length, 2, line);
    }
  },

  async "leaving, and coming back"(room) {
    const page = await enter(room.url, "Ann");
    await say(page, "/quit");
    await until("the door", async () => (await page.getByRole("alert").innerText()) === "You have left.");
    await page.reload();
    assert.ok(await page.getByLabel("Your name").isVisible());
    assert.equal(await page.getByLabel("Your name").inputValue(), "Ann");
    await page.keyboard.press("Enter");
    await says(page, "Connected as Ann.");
  },

  async "it works where storage is blocked"(room) {
    const page = await enter(room.url, "Ann", {}, (page) => page.addInitScript(() => {
      for (const kind of ["localStorage", "sessionStorage"]) {
        Object.defineProperty(window, kind, { get() { throw new DOMException("blocked", "SecurityError"); } });
      }
    }));
    await say(page, "without storage");
    await once(page, "without storage");
  },

  async "a screen reader finds its way, and so does the keyboard"(room) {
    const page = await open(room.url);
    const door = await page.locator("body").ariaSnapshot();
    for (const part of ["- main:", `heading "The room" [level=1]`, `textbox "Your name"`, `button "Enter"`]) {
      assert.ok(door.includes(part), `${part} in\n${door}`);
    }
    await page.keyboard.type("Ann");
    await page.keyboard.press("Enter");
    await says(page, "Connected as Ann.");
    await say(page, "read me");
    await once(page, "read me");
    const tree = await page.locator("body").ariaSnapshot();
    const parts = [`link "Skip to the message field"`, "- banner:", `heading "lobby" [level=1]`, "- main:", `region "Conversation"`, `log "Messages"`,
      "- status:", `form "Say something"`, `textbox "Message"`, `button "Send"`, `complementary "Who is here"`, `heading "1 here" [level=2]`, "- list:"];
    for (const part of parts) assert.ok(tree.includes(part), `${part} in\n${tree}`);
    const log = page.getByRole("log");
    assert.equal(await log.getAttribute("aria-live"), "polite");
    assert.equal(await log.getAttribute("aria-busy"), "false");
    assert.equal(await page.locator("html").getAttribute("lang"), "en");
    // All that can be reached, in the order it is read; each shows that it has the focus.
    const reaches = async (key, what) => {
      await page.keyboard.press(key);
      const [is, style, width] = await page.evaluate(() => {
        const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
        return [document.activeElement.id || document.activeElement.textContent, outlineStyle, parseFloat(outlineWidth)];
      });
      assert.equal(is, what);
      assert.ok(style !== "none" && width >= 2, `the focus on ${what} is seen`);
    };
    await hasFocus(page, "say");
    await reaches("Tab", "Send");
    await reaches("Shift+Tab", "say");
    await reaches("Shift+Tab", "scroll");
    await reaches("Shift+Tab", "Skip to the message field");
    assert.ok(await page.getByRole("link", { name: "Skip" }).isVisible());
    await page.keyboard.press("Enter");
    await hasFocus(page, "say");
  },

  async "narrow: 320 pixels, and nothing sticks out"(room) {
    const page = await open(room.url, { viewport: { width: 320, height: 568 } });
    const fits = async (what) => {
      const wide = await page.evaluate(() => [...document.querySelectorAll("body, body *")]
        .filter((e) => e.checkVisibility() && !e.closest(".unseen, .skip") && e.getBoundingClientRect().right > innerWidth + 0.5)
        .map((e) => e.outerHTML.slice(0, 80)));
      assert.deepEqual(wide, [], what);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), what);
    };
    await fits("the door");
    await page.getByLabel("Your name").fill("A name of thirty-two characters.");
    await page.keyboard.press("Enter");
    await says(page, "Connected as A name");
    await say(page, "w".repeat(900));
    await say(page, "/me does something with " + "v".repeat(200));
    await say(page, "https://example.org/" + "u".repeat(200));
    await say(page, "/help");
    await sees(page, "uuuu");
    await nothingWaits(page);
    await fits("the conversation");
    const toggle = page.getByRole("button", { name: "1 here" });
    assert.equal(await toggle.getAttribute("aria-expanded"), "false");
    assert.ok(await page.getByRole("complementary").isHidden());
    await toggle.press("Enter");
    assert.equal(await toggle.getAttribute("aria-expanded"), "true");
    assert.ok(await page.getByRole("complementary").isVisible());
    await fits("who is here");
    await page.keyboard.press("Escape");
    assert.ok(await field(page).isVisible());
  },
};

// -------------------------------------------------------------------------------------------------- how it looks

/** What stands in the pictures: members of terminals and of pages, one after the other. */
async function conversation(room, pages) {
  const members = {};
  for (const name of ["Bob", "Emil", "Oskar", "Zoë", "Priya", "sam_nc"]) members[name] = await Terminal.enter(room, name);
  const told = [
    ["Oskar", "morning! does the page survive a restart by now?"],
    ["Lin", "it does. Stop the room and start it again:"],
    ["Lin", "what was said meanwhile is told once, and nothing twice"],
    ["sam_nc", "and here is nc 127.0.0.1 7001, in the same room 🎉"],
    ["Bob", "/me restarts it, to be sure"],
    ["Ann", "back after half a second, no line missing"],
    ["Zoë", "schön! и по-русски, and <b>this</b> stays text"],
    ["Oskar", "/msg Ann lunch at noon?"],
    ["Ann", "more in https://example.org/room, comments welcome"],
    ["Priya", "reading it now"],
  ];
  for (const [name, line] of told) {
    if (pages[name]) await say(pages[name], line);
    else members[name].says(line);
    await sees(pages.Ann, line.replace(/^\/(me|msg \w+) /, ""));
  }
  for (const page of Object.values(pages)) await nothingWaits(page);
  return members;
}

/** The least contrast of what an element's text has with what is behind it (WCAG 2). */
function contrast(page, selector) {
  return page.evaluate((selector) => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
    const over = (colours) => { // any notation, each over the one before, as the browser itself paints it
      for (const colour of colours) {
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
      }
      return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const light = (rgb) => {
      const [r, g, b] = rgb.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ratios = [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility() && e.textContent).map((element) => {
      const behind = [];
      for (let e = element; e; e = e.parentElement) behind.unshift(getComputedStyle(e).backgroundColor);
      const [a, b] = [light(over(["white", ...behind])), light(over(["white", ...behind, getComputedStyle(element).color]))];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    });
    return ratios.length ? Math.min(...ratios) : NaN;
  }, selector);
}

for (const colorScheme of ["light", "dark"]) {
  tests[`colours: ${colorScheme}`] = async (room) => {
    const page = await enter(room.url, "Ann", { viewport: { width: 1280, height: 800 }, colorScheme });
    const lin = await enter(room.url, "Lin", { colorScheme });
    await conversation(room, { Ann: page, Lin: lin });
    await say(page, "/nobody");
    await sees(page, "there is no command");
    await page.screenshot({ path: join(shots, `${colorScheme}.png`) });
    const texts = [".line .text", ".line .name", ".line time", ".disc", ".moved", ".notice", ".private .text", ".private .kind",
      ".day", "a:not(.skip)", "header h1", "header h1 span", "#count", "#names li", "#names small", "#here p", "#status", "button.main"];
    const least = {};
    const measure = async (selector) => (least[selector] = Math.min(least[selector] ?? 21, await contrast(page, selector)));
    for (const selector of texts) await measure(selector);
    assert.ok(!Object.values(least).some(Number.isNaN), JSON.stringify(least));
    page.mayLoseTheWire = lin.mayLoseTheWire = true;
    await room.stop("SIGKILL");
    await says(page, "Trying again in");
    for (const selector of ["#status", "#now"]) await measure(selector);
    await field(page).fill("kept until the room is back");
    await page.screenshot({ path: join(shots, `${colorScheme}-away.png`) });
    await page.setViewportSize({ width: 360, height: 640 });
    await page.screenshot({ path: join(shots, `${colorScheme}-narrow.png`) });
    await page.getByRole("button", { name: "here" }).click();
    await page.screenshot({ path: join(shots, `${colorScheme}-narrow-who.png`) });
    // All twelve hues, not those that happen to be here.
    await page.evaluate(() => {
      for (let i = 0; i < 12; i++) {
        const row = make("li");
        row.append(make("span", `disc h${i}`, "A"), make("bdi", `name h${i}`, "A name"));
        $("names").append(row);
      }
    });
    for (const selector of ["#names .name", "#names .disc"]) await measure(selector);
    const door = await open((await room.start()).url, { viewport: { width: 800, height: 600 }, colorScheme });
    await door.screenshot({ path: join(shots, `${colorScheme}-door.png`) });
    for (const selector of ["#door h1", "#door p", "#door label"]) least[selector] = await contrast(door, selector);
    for (const [selector, ratio] of Object.entries(least)) assert.ok(ratio >= 4.5, `${selector}: ${ratio}`);
    return `least ${Math.min(...Object.values(least)).toFixed(2)}`;
  };
}

/** For the README: a page of each colour scheme and a terminal, in one room. */
tests["a picture of it all"] = async (room) => {
  const terminal = await Terminal.enter(room, "Tove");
  const ann = await enter(room.url, "Ann", { viewport: { width: 860, height: 560 }, colorScheme: "light" });
  const lin = await enter(room.url, "Lin", { viewport: { width: 356, height: 752 }, colorScheme: "dark" });
  await conversation(room, { Ann: ann, Lin: lin });
  terminal.says("hello from a terminal");
  for (const page of [ann, lin]) await once(page, "hello from a terminal");
  const url = async (page) => `data:image/png;base64,${(await page.screenshot()).toString("base64")}`;
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  const paper = await context.newPage();
  await paper.setContent(`<style>
    body { margin: 0; padding: 24px; height: 752px; background: linear-gradient(135deg, #c9dcd7, #8fb3ad); display: grid;
      grid-template: 560px 176px / 860px 372px; gap: 16px 0; box-sizing: content-box }
    img, pre { border-radius: 12px; box-shadow: 0 6px 20px #0005 }
    img { display: block } .lin { grid-area: 1 / 2 / 3 / 3; margin-left: 16px }
    pre { margin: 0; padding: 13px 18px; background: #10201d; color: #cfe6df; font: 15px/1.43 "DejaVu Sans Mono", monospace; box-sizing: border-box }
  </style><img class="ann"><img class="lin"><pre></pre>`);
  const [left, right] = [await url(ann), await url(lin)];
  await paper.evaluate(([left, right, heard]) => {
    document.querySelector(".ann").src = left;
    document.querySelector(".lin").src = right;
    document.querySelector("pre").textContent = ["$ nc 127.0.0.1 7001", ...heard.trim().split("\n").slice(-6)].join("\n");
  }, [left, right, terminal.heard]);
  await until("the pictures are there", () => paper.evaluate(() => [...document.images].every((image) => image.complete && image.naturalWidth)));
  await paper.screenshot({ path: join(shots, "room.png") });
};

// ---------------------------------------------------------------------------------------------------------- to run

mkdirSync(shots, { recursive: true });
let [passed, failed] = [0, 0];
const only = process.env.ONLY ?? "";
try {
  for (const [name, test] of Object.entries(tests).filter(([name]) => name.includes(only))) {
    complaints.length = 0;
    const began = Date.now();
    try {
      const room = await new Room().start();
      const figures = await test(room);
      assert.deepEqual(complaints, [], "the browser complains");
      passed++;
      console.log(`PASS  ${name.padEnd(64)} ${((Date.now() - began) / 1000).toFixed(1)} s ${figures ?? ""}`);
    } catch (error) {
      failed++;
      console.log(`FAIL  ${name.padEnd(64)} ${error.stack}${complaints.length ? `\n${complaints.join("\n")}` : ""}`);
    }
    for (const context of browser.contexts()) await context.close();
    for (const room of rooms) await room.stop("SIGKILL");
    if (failed && process.env.BAIL) break;
  }
} finally {
  await browser.close();
  rmSync(place, { recursive: true, force: true });
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
