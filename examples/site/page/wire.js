// What goes over the wire, and how it is shown.

export const settings = await (await fetch("settings.json")).json();

// Which browser this tab plays. The link in the mailbox opens in the same tab and leaves it as it is.
const named = new URLSearchParams(location.search).get("device");
if (named) sessionStorage.device = named;
export const device = sessionStorage.device ?? "Laptop";
export const environment = settings.environments.find(({ id }) => id === sessionStorage.environment) ?? settings.environments[0];

// kept is what this browser keeps for this environment.
export const kept = new Proxy({}, {
  get: (_, name) => JSON.parse(localStorage.getItem(`${device}/${environment.id}/${name}`) ?? "null"),
  set: (_, name, value) => (localStorage.setItem(`${device}/${environment.id}/${name}`, JSON.stringify(value)), true),
  deleteProperty: (_, name) => (localStorage.removeItem(`${device}/${environment.id}/${name}`), true),
});

export const prefix = `/api/v0/sdk/${environment.id}`;

const bytes = (text, from = "base64") =>
  from === "hex" ? Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16)) : Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
const hex = (raw) => Array.from(new Uint8Array(raw), (b) => b.toString(16).padStart(2, "0")).join("");
export const base64url = (raw) => btoa(String.fromCharCode(...new Uint8Array(raw))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

// claims reads a token as an app does: it looks, and leaves proving to others.
export const claims = (token) => {
  try {
    return JSON.parse(new TextDecoder().decode(bytes(token.split(".")[1])));
  } catch {
    return {};
  }
};

// describe says what a token is good for.
const describe = (token) => {
  const { scope, singleUse, iat, exp } = claims(token);
  if (!exp) return "<token>";
  const life = `${Math.round((exp - iat) / 60)}m`;
  return singleUse === undefined ? `<session ${scope}, ${life}>` : `<elevated ${scope}, ${singleUse ? "single-use, " : ""}${life}>`;
};
export const discreet = (text) =>
  text.replace(/eyJ[\w-]+\.[\w-]+\.[\w-]+/g, describe).replace(/\bmfa_[\w-]+/g, "<MFA token>").replace(/(deviceRegistrationToken=)[\w-]+/g, "$1<secret>");

// deviceKey is by which this browser is known again. A real app's key cannot be exported.
const deviceKey = async () => {
  const algorithm = { name: "ECDSA", namedCurve: "P-256" };
  const stored = localStorage.getItem(`${device}/key`);
  const pair = stored ? JSON.parse(stored) : await (async () => {
    const { privateKey } = await crypto.subtle.generateKey(algorithm, true, ["sign"]);
    return crypto.subtle.exportKey("jwk", privateKey);
  })();
  localStorage.setItem(`${device}/key`, JSON.stringify(pair));
  const y = bytes(pair.y);
  return {
    // A compressed point: whether y is odd, and x.
    public: hex([2 + (y.at(-1) & 1), ...bytes(pair.x)]),
    sign: async (text) => {
      const key = await crypto.subtle.importKey("jwk", pair, algorithm, false, ["sign"]);
      return hex(await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, key, new TextEncoder().encode(text)));
    },
  };
};

const proof = async () => {
  const { body } = await call("GET", "/nonces?count=1");
  const key = await deviceKey();
  const [nonce] = body.nonces;
  return { "x-dynamic-device-nonce": nonce, "x-dynamic-device-publickey": key.public, "x-dynamic-device-signed-nonce": await key.sign(nonce) };
};

// call sends a request and shows it. Its answer is {status, headers, body, text}.
export const call = async (method, path, { body, headers = {}, signed, anonymous } = {}) => {
  headers = { ...headers, ...(signed && (await proof())) };
  // What Dynamic's JavaScript SDK says of itself.
  Object.assign(headers, { "x-dyn-version": "ClientSDK/1.27.1", "x-dyn-api-version": "API/0.0.1125" });
  if (kept.session && !anonymous) headers.authorization = `Bearer ${kept.session}`;
  if (body) headers["content-type"] = "application/json";
  const answer = { status: 0, headers: {}, text: "", body: {} };
  try {
    const response = await fetch(settings.door + prefix + path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
    Object.assign(answer, { status: response.status, headers: Object.fromEntries(response.headers), text: await response.text() });
    answer.body = answer.text ? JSON.parse(answer.text) : {};
  } catch (error) {
    answer.text ||= String(error);
  }
  show({ method, path, headers, body }, answer);
  return answer;
};

const lines = (headers) => Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
export const raw = ({ status, headers, text }) => {
  let body = text;
  try {
    body = JSON.stringify(JSON.parse(text), null, 2);
  } catch { /* shown as it is */ }
  return discreet([`${status}`, ...lines(headers), "", body].join("\n"));
};

const show = (request, answer) => {
  const entry = document.createElement("article");
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = `${request.method} ${discreet(request.path)} → ${answer.status} ${answer.body.code ?? ""}`;
  summary.className = answer.status >= 400 || answer.status === 0 ? "refused" : "good";
  const sent = document.createElement("pre");
  sent.textContent = discreet([`${request.method} ${request.path}`, ...lines(request.headers), "", request.body ? JSON.stringify(request.body) : ""].join("\n").trim());
  const came = document.createElement("pre");
  came.textContent = raw(answer);
  details.append(summary, sent, came);
  entry.append(details);
  document.querySelector("#wire").prepend(entry);
};

// site asks the site's own server, which is no part of the wallet's API.
export const site = async (path, body) => {
  const response = await fetch(path, body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(await response.text());
  return response.json();
};

// totp is the code that an authenticator app shows now (RFC 6238), or so many steps later.
export const totp = async (secret, later = 0) => {
  const bits = Array.from(secret.replaceAll("=", ""), (c) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(c).toString(2).padStart(5, "0")).join("");
  const key = await crypto.subtle.importKey("raw", Uint8Array.from(bits.match(/.{8}/g), (b) => parseInt(b, 2)), { name: "HMAC", hash: "SHA-1" }, false, ["sign"]);
  const counter = new DataView(new ArrayBuffer(8));
  counter.setBigUint64(0, BigInt(Math.floor(Date.now() / 30_000) + later));
  const sum = new DataView(await crypto.subtle.sign("HMAC", key, counter));
  return String((sum.getUint32(sum.getUint8(19) & 15) & 0x7fffffff) % 1_000_000).padStart(6, "0");
};
