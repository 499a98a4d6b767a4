// The page: what a person does, what comes of it, and what can be done next.
import { base64url, call, claims, device, discreet, environment, kept, raw, settings, site, totp } from "./wire.js";

const $ = (selector) => document.querySelector(selector);
const element = (tag, text, more = {}) => Object.assign(document.createElement(tag), { textContent: text, ...more });
const button = (text, run) => element("button", text, { onclick: () => busy(run) });

// busy runs what a person asked for, and tells what went wrong in the page itself.
const busy = async (run) => {
  try {
    await run();
  } catch (error) {
    outcome("That did not work", String(error));
  }
  await readMail();
};

// The public key to which the backend encrypts the private one. Nobody here opens it.
const exportKey = async (headers) => {
  const { publicKey } = await crypto.subtle.generateKey({ name: "X25519" }, true, ["deriveBits"]);
  kept.exportId ??= base64url(await crypto.subtle.exportKey("raw", publicKey));
  return call("POST", `/waas/${kept.wallet}/privateKey/export`, { body: { exportId: kept.exportId }, headers });
};

const panels = ["code", "challenge", "result"];
const clear = () => panels.forEach((id) => ($("#" + id).hidden = true));

const outcome = (title, text, good = false, ...next) => {
  clear();
  $("#outcome").textContent = title;
  $("#shown").textContent = text;
  $("#next").replaceChildren(...next);
  $("#result").className = good ? "good" : "refused";
  $("#result").hidden = false;
};

// askCode waits for a person to type a code.
const askCode = (asks) =>
  new Promise((resolve) => {
    clear();
    $("#asks").textContent = asks;
    $("#code").hidden = false;
    $("#code").querySelector("input").value = "";
    $("#code form").onsubmit = (event) => {
      event.preventDefault();
      resolve(event.target.elements.code.value.trim());
    };
  });

const signedIn = () => Boolean(kept.session);
const render = () => {
  $("#signin").hidden = signedIn();
  $("#account").hidden = !signedIn();
  $("#app").hidden = !kept.totp;
  $("#secret").textContent = kept.totp ?? "";
  $("#paper").hidden = !kept.codes;
  $("#recovery").replaceChildren(...(kept.codes ?? []).map((code) => element("li", code)));
  if (!signedIn()) return;
  const { scope, sub, email } = claims(kept.session);
  $("#who").textContent = `Signed in as ${email ?? sub}, scope ${scope}`;
  $("#pending").hidden = scope !== "device:register";
  $("[data-do=export]").disabled = !kept.wallet;
};

const readMail = async () => {
  const mail = await site("mailbox");
  if (mail.length === 0) return;
  $("#mailbox").replaceChildren(...mail.map(({ to, code, link }) => {
    const item = element("li", `To ${to}: ` + (code ? `your code is ${code}` : "a new device wants to sign in. "));
    if (link) item.append(element("a", "It was me, on this device", { href: link }));
    return item;
  }));
};

setInterval(async () => {
  if (kept.totp) $("#totp").textContent = await totp(kept.totp, kept.later ?? 0);
}, 500);

// Proving who one is: each way returns the path of a call, below which end it stands, and the body that proves it.
const social = "/providers/google";
const ways = {
  email: async ({ to }) => sent("/emailVerifications", { email: to }, to),
  sms: async ({ to }) => sent("/smsVerifications", { phoneNumber: to, phoneCountryCode: "1", isoCountryCode: "US" }, "+1" + to),
  wallet: async (_, requestedScopes) => {
    const { body: { nonce } } = await call("GET", "/nonce");
    return { body: await site("wallet", { environment: environment.id, nonce, requestedScopes }) };
  },
  external: async ({ to }, requestedScopes) => ({ body: await site("token", { environment: environment.id, user: to, scope: requestedScopes?.join(" ") }) }),
  social: async (_, requestedScopes) => {
    const state = base64url(crypto.getRandomValues(new Uint8Array(24)));
    await call("POST", `${social}/initAuth`, { body: { state, redirectUrl: location.origin + "/" } });
    const { body } = await call("GET", "/settings");
    const [{ baseAuthUrl, clientId, redirectUrl, scopes }] = body.providers;
    sessionStorage.away = JSON.stringify({ state, requestedScopes });
    location = `${baseAuthUrl}?${new URLSearchParams({ client_id: clientId, redirect_uri: redirectUrl, response_type: "code", scope: scopes, state })}`;
    return new Promise(() => {}); // the page goes away
  },
};

// Which calls take the proofs. Wallets have two names for them.
const ends = {
  email: { signin: "/emailVerifications/signin", verify: "/emailVerifications/verify" },
  sms: { signin: "/smsVerifications/signin", verify: "/smsVerifications/verify" },
  wallet: { signin: "/verify", verify: "/wallets/verify" },
  external: { signin: "/externalAuth/signin", verify: "/externalAuth/verify" },
  social: { signin: `${social}/signIn`, verify: `${social}/verify` },
};

const sent = async (path, body, to) => {
  const { status, body: { verificationUUID } } = await call("POST", path + "/create", { body });
  if (status !== 200) throw new Error("No code was sent.");
  await readMail();
  return { body: { verificationUUID, verificationToken: await askCode(`A code went to ${to}`) } };
};

const adopt = ({ body }) => {
  if (body.jwt) kept.session = body.jwt;
  render();
};

const signIn = async (way, proof) => {
  const answer = await call("POST", ends[way].signin, { body: proof, signed: true, anonymous: true });
  if (answer.status !== 200) return outcome("Not signed in", raw(answer));
  adopt(answer);
  outcome("Signed in", discreet(`${answer.body.jwt}`), true);
};

// attempt makes a call that Stepward may refuse. again makes it once more with headers, which is how a token is added.
const attempt = async (title, again, headers = {}) => {
  const answer = await again(headers);
  if (answer.body.challenge) return challenge(title, again, answer);
  if (answer.status >= 300 || answer.status === 0) return outcome(`${title}: refused`, raw(answer));
  const replay = Object.keys(headers).length > 0;
  outcome(`${title}: done`, raw(answer), true, ...(replay ? [button("Send the very same request again", () => attempt(title, again, headers))] : []));
  return answer;
};

const challenge = async (title, again, answer) => {
  clear();
  const { kind, required_scopes: scopes, action } = answer.body.challenge;
  $("#refusal").textContent = answer.body.code;
  $("#says").textContent = answer.body.detail;
  $("#raw").textContent = raw(answer);
  $("#ways").replaceChildren();
  $("#challenge").hidden = false;
  if (kind !== "step_up" && kind !== "mfa") return;
  const credentials = kind === "mfa" ? await factors() : await stepUpCredentials(scopes[0]);
  for (const credential of credentials) {
    $("#ways").append(button(`Verify by ${credential.name}`, async () => {
      const grant = kind === "mfa" ? { createMfaToken: { singleUse: true } } : { requestedScopes: [scopes[0]] };
      const verified = await credential.verify(grant);
      if (verified.status !== 200) return outcome("Not verified", raw(verified));
      const { challenge: { token_header: header } } = answer.body;
      const token = verified.body.elevatedAccessToken ?? verified.body.mfaToken;
      adopt(verified);
      const use = button(`Send it again, with the token for ${scopes?.[0] ?? action}`, () => attempt(title, again, { [header]: token }));
      outcome("Verified", discreet(JSON.stringify({ [header]: token }, null, 2)), true, use);
    }));
  }
  if (credentials.length === 0) $("#ways").textContent = "This user has nothing to verify with: enrol an authenticator app or a passkey first.";
};

const formats = { email: "email", phoneNumber: "sms", blockchain: "wallet", oauth: "social", externalUser: "external" };
const names = { email: "a code in a mail", sms: "a code in an SMS", wallet: "the wallet's signature", social: "the social account", external: "a token of the site's own" };

// What the issuer says the user can verify by. With a second factor enrolled that is nothing else.
const stepUpCredentials = async (scope) => {
  const { body } = await call("POST", "/stepUp/check", { body: { scope } });
  const own = (body.credentials ?? []).filter(({ format }) => formats[format]).map(({ format, alias }) => {
    const way = formats[format];
    return {
      name: names[way],
      verify: async ({ requestedScopes }) => {
        const to = way === "sms" ? alias.replace("+1", "") : alias;
        const proof = await ways[way]({ to }, requestedScopes);
        return call("POST", ends[way].verify, { body: { ...proof.body, requestedScopes } });
      },
    };
  });
  return own.length > 0 ? own : factorsOf(body.credentials ?? []);
};

const factors = async () => {
  const { body } = await call("GET", "/users/mfa/methods?verifiedOnly=true");
  return factorsOf([...(body.devices ?? []).map(() => ({ format: "totp" })), ...(body.passkeys ?? []).map(() => ({ format: "passkey" }))]);
};

const factorsOf = (credentials) => {
  const list = credentials.map(({ format }) => (format === "totp"
    ? { name: "the authenticator app", verify: async (grant) => byCode("/users/mfa/auth/totp", "The code of the authenticator app", grant) }
    : { name: "the passkey", verify: byPasskey }));
  if (list.length > 0) list.push({ name: "a recovery code", verify: async (grant) => byCode("/users/mfa/auth/recovery", "A recovery code", grant) });
  return list;
};

const byCode = async (path, asks, grant) => {
  const answer = await call("POST", path, { body: { code: await askCode(asks), ...grant } });
  if (answer.status === 200) spend(path);
  return answer;
};

// spend shows the next code: one that was used is of no use again, and the issuer takes the next one early.
const spend = (path) => {
  if (path.endsWith("/totp")) kept.later = Math.min((kept.later ?? 0) + 1, 1);
};

const byPasskey = async (grant) => {
  const { body: options } = await call("GET", "/users/passkeys/authenticate");
  const key = await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) });
  return call("POST", "/users/mfa/auth/passkey", { body: { ...key.toJSON(), ...grant } });
};

const actions = {
  look: () => attempt("The account", (headers) => call("GET", "/users", { headers })),
  wallet: async () => {
    const answer = await attempt("A new wallet", (headers) => call("POST", "/waas/create", { body: { chain: "SVM" }, headers }));
    if (answer?.body.walletId) kept.wallet = answer.body.walletId;
    render();
  },
  export: () => attempt("The private key", exportKey),
  app: () => attempt("An authenticator app", async (headers) => {
    const begun = await call("GET", "/users/mfa/register/totp", { headers });
    if (begun.status !== 200) return begun;
    kept.totp = begun.body.secret;
    kept.later = 0;
    render();
    const code = await askCode("The code of the new authenticator app");
    const answer = await call("POST", "/users/mfa/register/totp", { body: { type: "totp", code }, headers });
    spend("/totp");
    if (answer.status === 200) adopt(await call("POST", "/refresh")); // the session tells of it from now on
    return answer;
  }),
  passkey: () => attempt("A passkey", async (headers) => {
    const begun = await call("GET", "/users/passkeys/register", { headers });
    if (begun.status !== 200) return begun;
    const key = await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(begun.body) });
    return call("POST", "/users/passkeys/register", { body: key.toJSON(), headers });
  }),
  codes: async () => {
    const answer = await attempt("Recovery codes", (headers) => call("GET", "/users/mfa/recovery", { headers }));
    if (answer?.body.recoveryCodes) kept.codes = answer.body.recoveryCodes;
    render();
  },
  devices: async () => {
    const answer = await attempt("Devices", (headers) => call("GET", "/deviceRegistrations", { headers }));
    for (const { id, isCurrentDevice } of answer?.body.deviceRegistrations ?? [])
      $("#next").append(button(`Forget ${isCurrentDevice ? "this device" : id.slice(0, 8)}`, () =>
        attempt("To forget a device", (headers) => call("DELETE", `/deviceRegistrations/${id}`, { headers }))));
  },
  signout: async () => {
    await call("POST", "/revoke", { body: {} });
    for (const name of ["session", "wallet"]) delete kept[name];
    clear();
    render();
  },
};

// Coming back: from the social network, or by the link in a mail.
const arrive = async () => {
  const query = new URLSearchParams(location.search);
  const [state, code, deviceToken] = ["dynamicOauthState", "dynamicOauthCode", "deviceRegistrationToken"].map((name) => query.get(name));
  history.replaceState(null, "", location.pathname); // no token stays in the address
  if (deviceToken) {
    const answer = await call("POST", "/deviceRegistration", { signed: true, headers: { "x-dynamic-device-registration-token": deviceToken } });
    if (answer.status !== 200) return outcome("This device is not registered", raw(answer));
    adopt(answer);
    return outcome("This device is registered", raw(answer), true);
  }
  const away = JSON.parse(sessionStorage.away ?? "null");
  if (!state || away?.state !== state) return;
  delete sessionStorage.away;
  if (!away.requestedScopes) return signIn("social", { state, code });
  const [scope] = away.requestedScopes;
  const verified = await call("POST", ends.social.verify, { body: { state, code, requestedScopes: [scope] } });
  if (verified.status !== 200) return outcome("Not verified", raw(verified));
  adopt(verified);
  const headers = { "x-dyn-elevated-access-token": verified.body.elevatedAccessToken };
  const use = button(`Export the key, with the token for ${scope}`, () => attempt("The private key", exportKey, headers));
  outcome("Verified", discreet(JSON.stringify(headers, null, 2)), true, use);
};

for (const { id, title } of settings.environments) $("#environment").append(new Option(title, id, false, id === environment.id));
$("#environment").onchange = ({ target }) => {
  sessionStorage.environment = target.value;
  location.reload();
};
$("#device").textContent = device;
const other = device === "Laptop" ? "Phone" : "Laptop";
Object.assign($("#other"), { textContent: `Open another device: the ${other.toLowerCase()}`, href: `/?device=${other}`, rel: "noopener" });
for (const form of document.querySelectorAll("#signin form"))
  form.onsubmit = (event) => {
    event.preventDefault();
    const { way } = form.dataset;
    busy(async () => signIn(way, (await ways[way]({ to: form.elements.to?.value })).body));
  };
for (const b of document.querySelectorAll("[data-do]")) b.onclick = () => busy(actions[b.dataset.do]);
render();
await busy(arrive);
