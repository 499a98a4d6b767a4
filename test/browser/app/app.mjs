// The wallet's page: Dynamic's own packages, set up as an app sets them up, within reach of the test's driver as window.app.
// Nothing here knows Stepward. Four clients call the API:
//   call    the SDK's public functions (@dynamic-labs-sdk/client, pinned to sdk-api-core 0.0.1125)
//   api     the SDK's own API client, which its extension packages use for endpoints without a function: same headers,
//           tokens and errors
//   wallet  what runs in Dynamic's iframe, which no test can load: the HTTP client of @dynamic-labs-wallet/core
//   plain   sdk-api-core 0.40.0, the newest generated client, which knows nothing of the SDK's state
import * as sdk from "@dynamic-labs-sdk/client";
import * as core from "@dynamic-labs-sdk/client/core";
import * as waas from "@dynamic-labs-sdk/client/waas";
import { DynamicApiClient } from "@dynamic-labs-wallet/core";
import { Configuration, SDKApi } from "@dynamic-labs/sdk-api-core";

const { apiBaseUrl, environmentId } = window.settings;

// attaching is docs/clients.md's remedy for the calls on which the SDK forgets the token. The page has it if its address says so.
const attaching = (url, init = {}) => {
  const headers = new Headers(init.headers);
  const token = String(url).endsWith("/emailVerifications/verify") && sdk.getElevatedAccessToken({ scope: "credential:link" });
  if (token) headers.set("x-dyn-elevated-access-token", token);
  return fetch(url, { ...init, headers });
};
const client = sdk.createDynamicClient({
  environmentId,
  coreConfig: { apiBaseUrl, ...(new URLSearchParams(location.search).has("attaching") && { fetch: attaching }) },
  metadata: { name: "Wallet" },
});

const logouts = [];
sdk.onEvent({ event: "logout", listener: ({ reason }) => logouts.push(reason) });

// told runs a call and says what it returned, or what it threw, in a form that can leave the page.
const told = async (call) => {
  try {
    return { value: await call() };
  } catch (error) {
    const { name, code, message, status, payload } = error;
    const body = error instanceof Response ? await error.json().catch(() => undefined) : undefined; // sdk-api-core throws answers
    return {
      error: {
        isAPIError: error instanceof core.APIError, isUnauthorized: error instanceof sdk.UnauthorizedError,
        name, code, message, status, payload, body,
      },
    };
  }
};

// ceremonies are the calls of the iframe's client that say when all parties are done; the others only say where to meet.
const ceremonies = ["createWalletAccount", "refreshWalletAccountShares", "reshare"];

// events reads a whole stream of server-sent events.
const events = async (response) => {
  const list = [];
  const text = await response.text();
  for (const block of text.split("\n\n").filter(Boolean)) {
    const field = (name) => block.split("\n").find((line) => line.startsWith(name + ": "))?.slice(name.length + 2);
    list.push({ event: field("event"), data: JSON.parse(field("data")) });
  }
  return list;
};

window.app = {
  ready: () => sdk.waitForClientInitialized(),
  call: (name, ...args) => told(() => (sdk[name] ?? waas[name])(...args)),
  api: (options, method, request) => told(() => core.createApiClient(options, client)[method]({ environmentId, ...request })),

  // The SDK hands the wanted token to its iframe, whose client sends it.
  wallet: async (method, { scope, mfa, ...request }) => {
    const unauthorized = [];
    const wallets = new DynamicApiClient({
      environmentId, authToken: client.token, authMode: client.projectSettings.security.auth.storage.includes("cookie") ? "cookie" : "header",
      baseApiUrl: new URL(apiBaseUrl).origin, sdkVersion: "ClientSDK/" + core.getCore(client).version,
      onUnauthorized: () => unauthorized.push(method),
    });
    const elevatedAccessToken = scope && sdk.getElevatedAccessToken({ scope });
    const mfaToken = mfa && sdk.consumeMfaToken();
    const ceremony = new Promise((resolve) => {
      request.onCeremonyComplete = (address, walletId) => resolve({ address, walletId });
    });
    const result = await told(async () => {
      const room = await wallets[method]({ ...request, elevatedAccessToken, mfaToken, dynamicRequestId: crypto.randomUUID() });
      return ceremonies.includes(method) ? { ...room, ...(await ceremony) } : room;
    });
    return { ...result, unauthorized };
  },

  plain: ({ headers = {}, as = "value" }, method, request) =>
    told(async () => {
      const api = new SDKApi(new Configuration({ basePath: apiBaseUrl, accessToken: () => client.token, headers }));
      const answer = await api[method + "Raw"]({ environmentId, ...request });
      return { value: () => answer.value(), events: () => events(answer.raw), json: () => answer.raw.json() }[as]();
    }),

  state: () => ({
    signedIn: sdk.isSignedIn(), user: client.user, token: client.token, mfaToken: client.mfaToken, logouts: [...logouts],
    elevated: core.getCore(client).state.get().elevatedAccessTokens.map(({ token, scopes, singleUse }) => ({ token, scopes, singleUse })),
    settings: client.projectSettings,
    stored: Object.fromEntries(Object.keys(localStorage).map((key) => [key, localStorage.getItem(key)])),
  }),
};
