// What every scenario is made of. A scenario runs in a node process of its own, is told of the world around it by its first
// argument, and prints one JSON object per line: {"step"} for what it does, {"failed"} and whatever helps for what went wrong.
import assert from "node:assert/strict";
import { createHmac, generateKeyPairSync } from "node:crypto";
import { launch } from "./chromium.mjs";

const world = JSON.parse(process.argv[2] ?? "{}"); // {page, api, environment}: two origins, and an environment's id
const prefix = `/api/v0/sdk/${world.environment}`;
const say = (line) => console.log(JSON.stringify(line));

export { assert };
export const step = (text) => say({ step: text });

// tell runs a scenario with a browser and fails the process if it throws, or if a device saw what nobody expected: the console may
// say what is expected of this scenario.
export const tell = async (scenario, ...expected) => {
  const browser = await launch();
  const devices = [];
  const open = async () => {
    const device = new Device(await browser.newContext());
    device.expected.push(...expected);
    devices.push(device);
    await device.start();
    return device;
  };
  try {
    await scenario(open);
    for (const device of devices) device.checkSurroundings();
  } catch (error) {
    say({ failed: error.stack, requests: devices.flatMap((d) => d.requests.slice(-12)), console: devices.flatMap((d) => d.errors) });
    process.exitCode = 1;
  } finally {
    await browser.close();
  }
};

// ask calls the test's own endpoints: the user's mailbox, the backend's counts.
export const ask = async (path, body) => {
  const answer = await fetch(`${world.page}/world${path}`, body && { method: "POST", body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
};

// eventually waits for what does not happen at once.
export const eventually = async (what, is) => {
  for (const end = Date.now() + 20_000; !(await is()); ) {
    if (Date.now() > end) assert.fail(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};

// executions is how often the backend has seen a call, such as "GET /users", whatever it made of it.
export const executions = async (call) => {
  const [method, path] = call.split(" ");
  return (await ask("/counts"))[`${method} ${prefix}${path}`] ?? 0;
};

// totp is the code that an authenticator app shows (RFC 6238), that many steps of 30 seconds from now. It waits for the next
// one, as people do, rather than to take one that ends on its way.
export const totp = async (secret, steps = 0) => {
  const left = 30_000 - (Date.now() % 30_000);
  if (left < 3_000) await new Promise((resolve) => setTimeout(resolve, left));
  const bits = [...secret.replace(/=+$/, "")].map((c) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(c).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + steps));
  const sum = createHmac("sha1", key).update(counter).digest();
  const number = sum.readUInt32BE(sum[19] & 15) & 0x7fffffff;
  return String(number % 1_000_000).padStart(6, "0");
};

// exportId is a public key for the example backend to encrypt an exported key to (X25519, base64url).
export const exportId = () => generateKeyPairSync("x25519").publicKey.export({ format: "jwk" }).x;

// What the console may say: each refusal is also a line of Chromium's, the pinned packages name other versions of each
// other, and the SDK's telemetry has nowhere to go.
const expectedErrors = [
  /^Failed to load resource: the server responded with a status of 4\d\d/,
  /^Failed to load resource: net::ERR_PROXY_CONNECTION_FAILED/,
  /^\[@dynamic-labs\/assert-package-version\] \[ERROR\]: .*Version Mismatch Error[^]*`@dynamic-labs\/message-transport` \(installed: \*\*5\.6\.1\*\*/,
];

const isLoopback = (url) => ["127.0.0.1", "localhost"].includes(new URL(url).hostname);

// Device is one browser profile with the app open in it.
class Device {
  requests = []; // to Stepward, in order: {method, path, url, headers, status}
  errors = []; // of the console, besides those that are expected
  expected = [...expectedErrors];
  strays = []; // requests that left the machine

  constructor(context) {
    this.context = context;
  }

  async start(url = world.page + "/") {
    this.tab ??= await this.#watched();
    // Whoever leaves a page cuts off what it is asking, and the SDK complains.
    await eventually("all is answered", () => this.requests.every(({ status, failed }) => status ?? failed));
    await this.tab.goto(url);
    await this.tab.evaluate(() => window.app.ready());
  }

  async #watched() {
    const tab = await this.context.newPage();
    tab.on("pageerror", (error) => this.errors.push(String(error)));
    tab.on("console", (line) => {
      if (line.type() === "error" && !this.expected.some((e) => e.test(line.text()))) this.errors.push(line.text());
    });
    tab.on("request", (request) => {
      const { host, pathname, origin } = new URL(request.url());
      if (origin !== world.api) return;
      this.requests.push({
        request, method: request.method(), path: pathname.replace(prefix, ""), url: request.url(), headers: request.headers(),
        toJSON() { return `${this.method} ${this.path} -> ${this.status ?? this.failed}`; },
      });
    });
    tab.on("requestfailed", (request) => {
      const known = this.requests.find((r) => r.request === request);
      if (known) known.failed = request.failure().errorText;
    });
    tab.on("response", (response) => {
      const known = this.requests.find((r) => r.request === response.request());
      if (known) Object.assign(known, { response, status: response.status() });
      if (!isLoopback(response.url())) this.strays.push(response.url());
    });
    return tab;
  }

  // addAuthenticator plugs in an authenticator whose user is there, is willing and is who they say they are.
  async addAuthenticator() {
    const devtools = await this.context.newCDPSession(this.tab);
    await devtools.send("WebAuthn.enable");
    await devtools.send("WebAuthn.addVirtualAuthenticator", {
      options: {
        protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true,
        automaticPresenceSimulation: true,
      },
    });
  }

  checkSurroundings() {
    assert.deepEqual(this.strays, [], "these requests were answered from outside this machine");
    assert.deepEqual(this.errors, [], "the console has errors that nobody expected");
  }

  state() {
    return this.tab.evaluate(() => window.app.state());
  }

  // A call that is never answered would keep the scenario, and say nothing.
  #told(client, args) {
    const overdue = setTimeout(() => this.tab.close(), 40_000);
    return this.tab.evaluate(([client, args]) => window.app[client](...args), [client, args]).finally(() => clearTimeout(overdue));
  }

  // call, api, wallet and plain are the app's clients; each returns what the call returned and throws what it threw.
  call = (...args) => this.#value("call", args);
  api = (...args) => this.#value("api", args);
  wallet = (...args) => this.#value("wallet", args);
  plain = (...args) => this.#value("plain", args);

  async #value(client, args) {
    const { value, error } = await this.#told(client, args);
    if (error) throw new Error(`${client} ${JSON.stringify(args)}: ${JSON.stringify(error)}`);
    return value;
  }

  // refused makes a call that has to fail, and returns the error.
  async refused(client, ...args) {
    const { value, error, unauthorized } = await this.#told(client, args);
    if (!error) assert.fail(`${client} ${JSON.stringify(args)} succeeded: ${JSON.stringify(value)}`);
    return { ...error, unauthorized };
  }

  // last is the newest request of a call such as "GET /users", once it is answered.
  async last(call) {
    const find = () => this.requests.findLast((r) => `${r.method} ${r.path}` === call);
    for (let left = 200; left > 0 && find()?.status === undefined; left--) await new Promise((resolve) => setTimeout(resolve, 10));
    return find() ?? assert.fail(`there was no ${call}`);
  }

  async signIn(email) {
    const otpVerification = await this.call("sendEmailOTP", { email });
    const { Code: verificationToken } = await ask(`/mail?to=${email}`);
    return this.call("verifyOTP", { otpVerification, verificationToken });
  }

  // stepUpByEmail asks for scopes by a code to the user's address.
  async stepUpByEmail(email, ...requestedScopes) {
    const otpVerification = await this.call("sendEmailOTP", { email });
    const { Code: verificationToken } = await ask(`/mail?to=${email}`);
    return this.call("verifyOTP", { otpVerification, verificationToken, requestedScopes });
  }

  // staysSignedIn asserts that a refusal cost the user nothing.
  async staysSignedIn(user) {
    const state = await this.state();
    assert.equal(state.signedIn, true);
    assert.equal(state.user.id, user.id);
    assert.deepEqual(state.logouts, []);
    assert.equal((await this.call("refreshUser")).id, user.id);
  }
}

// isRefusal asserts that an error is the SDK's APIError and says what Stepward said.
export const isRefusal = (error, code, message) => {
  const { isAPIError, name, status } = error;
  assert.deepEqual({ isAPIError, name, status, code: error.code }, { isAPIError: true, name: "APIError", status: 403, code });
  if (message) assert.equal(error.message, message);
};

export { world, prefix };
