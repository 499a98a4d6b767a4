// Goes by hand through the demo's page, as a person would, in Debian's Chromium. Its argument is the page's address. It prints one
// JSON object per line: {"step"} for what it does, {"failed"} for what went wrong.
import assert from "node:assert/strict";
import { launch } from "./chromium.mjs";

const [page] = process.argv.slice(2);
const say = (line) => console.log(JSON.stringify(line));
const step = (text) => say({ step: text });

// What the console may say: each refusal is also a line of Chromium's.
const expected = /^Failed to load resource: the server responded with a status of 4\d\d/;
const errors = [];

// Person is somebody at the page, in one tab.
class Person {
  constructor(tab) {
    this.tab = tab;
    tab.setDefaultTimeout(20_000);
    tab.on("pageerror", (error) => errors.push(String(error)));
    tab.on("console", (line) => line.type() === "error" && !expected.test(line.text()) && errors.push(line.text()));
  }

  static async arrive(context, environment = 0, path = "/") {
    const person = new Person(await context.newPage());
    await person.tab.goto(page + path);
    await person.tab.locator("#environment option").nth(1).waitFor({ state: "attached" });
    if (environment > 0) await Promise.all([person.tab.waitForEvent("load"), person.tab.selectOption("#environment", { index: environment })]);
    return person;
  }

  press = (name) => this.tab.getByRole("button", { name }).click();
  text = (selector) => this.tab.locator(selector).innerText();
  see = (text) => this.tab.locator("main").getByText(text).first().waitFor();

  async type(code) {
    await this.tab.locator("#code").waitFor();
    await this.tab.fill("#code input", code);
    await this.press("Verify");
  }

  // mailed types the code of the newest message, which the page shows.
  async mailed(to) {
    await this.see(`A code went to ${to}`);
    const newest = await this.tab.locator("#mailbox li").first().innerText();
    assert.ok(newest.startsWith(`To ${to}: your code is `), newest);
    await this.type(newest.match(/ (\d{6})$/)[1]);
  }

  async signIn(way, to, shown = to) {
    const form = this.tab.locator(`form[data-way=${way}]`);
    if (to) await form.locator("input").fill(to);
    await form.getByRole("button").click();
    if (shown) await this.mailed(shown);
    await this.see("Signed in as");
  }

  async makeWallet() {
    await this.press("Make a wallet");
    await this.see("A new wallet: done");
  }

  // refused presses a button and returns the challenge as the page shows it.
  async refused(name, code) {
    await this.press(name);
    await this.see(`Refused: ${code}`);
    return this.text("#raw");
  }

  // passes sends again what was refused, with the token; replayed, it is refused.
  async passes(what, consumed) {
    await this.press(/^(Send it again|Export the key), with the token/);
    await this.see(`${what}: done`);
    if (!consumed) return;
    assert.match(await this.text("#shown"), /"encryptedPrivateKey"/);
    await this.press("Send the very same request again");
    await this.see(`Refused: ${consumed}`);
    assert.match(await this.text("#raw"), /"token_state": "consumed"/);
  }

  async app() {
    await this.tab.locator("#totp").getByText(/\d/).waitFor();
    await this.tab.waitForTimeout(700); // the page shows a new code twice a second
    return this.text("#totp");
  }
}

const spent = "elevated_access_token_consumed";
const required = "elevated_access_token_required";
const key = "The private key";

const scenarios = {
  "by mail: challenged, verified, through once, and the replay refused": async (context) => {
    const ann = await Person.arrive(context);
    await ann.signIn("email", "ann@page.example");
    await ann.makeWallet();
    const raw = await ann.refused("Export its private key", required);
    assert.match(raw, /^403\n/);
    assert.match(raw, /\nwww-authenticate: Bearer realm="wallet", error="insufficient_user_authentication"/);
    assert.match(raw, /\nstep-up-challenge: code=elevated_access_token_required, kind=step_up/);
    assert.match(raw, /"required_scopes": \[\s+"wallet:export"\s+\]/);
    await ann.press("Verify by a code in a mail");
    await ann.mailed("ann@page.example");
    await ann.passes(key, spent);
    await ann.press("Sign out");
    await ann.tab.locator("#signin").waitFor();
  },

  "by an app and a recovery code, and then by nothing else": async (context) => {
    const bob = await Person.arrive(context);
    await bob.signIn("email", "bob@page.example");
    await bob.makeWallet();
    await bob.refused("Enrol an authenticator app", required);
    await bob.press("Verify by a code in a mail");
    await bob.mailed("bob@page.example");
    await bob.press("Send it again, with the token for credential:link");
    await bob.see("The code of the new authenticator app");
    await bob.type(await bob.app());
    await bob.see("An authenticator app: done");
    await bob.press("Get recovery codes");
    await bob.see("Recovery codes: done");
    const [code] = (await bob.text("#recovery")).split("\n");
    await bob.refused("Export its private key", required);
    await bob.tab.getByRole("button", { name: "Verify by a recovery code" }).waitFor();
    assert.equal(await bob.tab.getByRole("button", { name: "Verify by a code in a mail" }).count(), 0);
    await bob.press("Verify by the authenticator app");
    await bob.see("The code of the authenticator app");
    await bob.type(await bob.app());
    await bob.passes(key, spent);
    await bob.press("Verify by a recovery code");
    await bob.see("A recovery code");
    await bob.type(code);
    await bob.passes(key, spent);
  },

  "by a passkey": async (context) => {
    const carol = await Person.arrive(context);
    const devtools = await context.newCDPSession(carol.tab);
    await devtools.send("WebAuthn.enable");
    await devtools.send("WebAuthn.addVirtualAuthenticator", { options: {
      protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true,
    } });
    await carol.signIn("email", "carol@page.example");
    await carol.makeWallet();
    await carol.refused("Add a passkey", required);
    await carol.press("Verify by a code in a mail");
    await carol.mailed("carol@page.example");
    await carol.passes("A passkey");
    await carol.refused("Export its private key", required);
    await carol.press("Verify by the passkey");
    await carol.passes(key, spent);
  },

  "by SMS": async (context) => {
    const dan = await Person.arrive(context);
    await dan.signIn("sms", "5550199", "+15550199");
    await dan.makeWallet();
    await dan.refused("Export its private key", required);
    await dan.press("Verify by a code in an SMS");
    await dan.mailed("+15550199");
    await dan.passes(key, spent);
  },

  "by a wallet's signature": async (context) => {
    const erin = await Person.arrive(context);
    await erin.signIn("wallet");
    await erin.makeWallet();
    await erin.refused("Export its private key", required);
    await erin.press("Verify by the wallet's signature");
    await erin.passes(key, spent);
  },

  "by a social account": async (context) => {
    const frank = await Person.arrive(context);
    const away = async () => {
      await frank.tab.waitForURL("**/authorize?**");
      await frank.tab.fill("input[name=email]", "frank@page.example");
      await frank.press("Continue");
      await frank.tab.waitForURL(page + "/");
    };
    await frank.tab.locator("form[data-way=social]").getByRole("button").click();
    await away();
    await frank.see("Signed in as");
    await frank.makeWallet();
    await frank.refused("Export its private key", required);
    await frank.press("Verify by the social account");
    await away();
    await frank.passes(key, spent);
  },

  "by the site's own token": async (context) => {
    const grace = await Person.arrive(context);
    await grace.tab.locator("form[data-way=external] input").fill("grace-of-the-page");
    await grace.signIn("external");
    await grace.makeWallet();
    await grace.refused("Export its private key", required);
    await grace.press("Verify by a token of the site's own");
    await grace.passes(key, spent);
  },

  "on a second device, which the link registers and the first one forgets": async (context) => {
    const laptop = await Person.arrive(context);
    await laptop.signIn("email", "ivy@page.example");
    const phone = await Person.arrive(context, 0, "/?device=Phone");
    assert.equal(await phone.text("#device"), "Phone");
    await phone.signIn("email", "ivy@page.example");
    await phone.see("Nobody knows this device.");
    const raw = await phone.refused("Look at the account", "device_verification_required");
    assert.match(raw, /kind=device_verification/);
    await phone.tab.getByRole("link", { name: "It was me, on this device" }).first().click();
    await phone.see("This device is registered");
    assert.equal(phone.tab.url(), page + "/"); // the token has left the address
    await phone.press("Look at the account");
    await phone.see("The account: done");
    await laptop.press("List devices");
    await laptop.see("Devices: done");
    await laptop.tab.getByRole("button", { name: /^Forget (?!this device)/ }).click();
    await laptop.see("To forget a device: done");
    await phone.press("Look at the account");
    await phone.see("The account: refused");
    assert.match(await phone.text("#shown"), /^401\n/);
  },

  "below 2026_04_01: no step-up, and MFA for who has a method": async (context) => {
    const henry = await Person.arrive(context, 1);
    await henry.signIn("email", "hal@page.example");
    await henry.makeWallet();
    await henry.press("Export its private key");
    await henry.see(`${key}: done`);
    await henry.press("Enrol an authenticator app");
    await henry.see("The code of the new authenticator app");
    await henry.type(await henry.app());
    await henry.see("An authenticator app: done");
    const raw = await henry.refused("Export its private key", "mfa_token_required");
    assert.match(raw, /"action": "wallet.waas.export"/);
    await henry.press("Verify by the authenticator app");
    await henry.see("The code of the authenticator app");
    await henry.type(await henry.app());
    await henry.passes(key, "mfa_token_consumed");
  },
};

const browser = await launch();
try {
  for (const [name, tell] of Object.entries(scenarios)) {
    step(name);
    const context = await browser.newContext();
    try {
      await tell(context);
    } catch (error) {
      const tab = context.pages().at(-1);
      const wire = await tab?.locator("#wire summary").allInnerTexts().catch(() => []);
      say({ failed: `${name}: ${error.stack}`, page: await tab?.locator("main").innerText().catch(() => ""), wire: wire?.slice(0, 12) });
      process.exitCode = 1;
    }
    await context.close();
  }
  if (errors.length > 0) {
    say({ failed: `the console has errors that nobody expected: ${errors.join("\n")}` });
    process.exitCode = 1;
  }
} finally {
  await browser.close();
}
