// In cookie mode no script sees the session: it travels in a cookie that the backend sets through Stepward, and so does what the
// device is known by.
import { ask, assert, executions, exportId, isRefusal, prefix, step, tell, world } from "../story.mjs";

const sessionOf = async (device) => (await device.context.cookies(world.api)).find(({ name }) => name === "DYNAMIC_JWT_TOKEN");

const noToken = async (device) => {
  const { token, stored } = await device.state();
  assert.equal(token, null);
  assert.ok(!Object.values(stored).some((value) => /"(token|legacyToken)":"eyJ/.test(value)), JSON.stringify(stored));
  assert.equal(await device.tab.evaluate(() => document.cookie), "");
  assert.deepEqual(device.requests.filter(({ headers }) => headers.authorization), []);
};

await tell(async (open) => {
  const email = "ann@example.com";
  const phone = await open();

  step("signing in leaves a cookie that no script can read, and no token");
  const { user } = await phone.signIn(email);
  const first = await sessionOf(phone);
  assert.deepEqual({ httpOnly: first.httpOnly, sameSite: first.sameSite }, { httpOnly: true, sameSite: "Lax" });
  await noToken(phone);
  await phone.staysSignedIn(user);

  step("after a reload the SDK finds its user by the cookie");
  await phone.start();
  await phone.staysSignedIn(user);

  step("an export is refused without a step-up, and the user stays signed in");
  const { walletId } = await phone.wallet("createWalletAccount", { chainName: "SVM", clientKeygenIds: ["one"] });
  const key = { walletId, exportWaasWalletPrivateKeyRequest: { exportId: exportId() } };
  isRefusal(await phone.refused("api", { elevatedAccessTokenScope: "wallet:export" }, "exportPrivateKey", key), "elevated_access_token_required");

  step("a step-up brings an elevated token to the page, and a new session into the cookie");
  await phone.stepUpByEmail(email, "wallet:export");
  assert.notEqual((await sessionOf(phone)).value, first.value);
  const [token] = (await phone.state()).elevated;
  assert.ok((await phone.wallet("exportKey", { scope: "wallet:export", walletId, exportId: exportId() })).roomId);
  const headers = { "x-dyn-elevated-access-token": token.token };
  isRefusal(await phone.refused("api", { headers }, "exportPrivateKey", key), "elevated_access_token_consumed");
  assert.equal(await executions(`POST /waas/${walletId}/privateKey/export`), 1);
  await noToken(phone);

  step("a page of another site cannot use the cookie");
  const take = (url) => fetch(url, { credentials: "include", mode: "no-cors" });
  const before = await executions("GET /users");
  await phone.tab.evaluate(take, world.api + prefix + "/users");
  assert.equal(await executions("GET /users"), before + 1);
  const stranger = await phone.context.newPage();
  await stranger.goto(world.page.replace("localhost", "127.0.0.1") + "/world/counts");
  await stranger.evaluate(take, world.api + prefix + "/users");
  await stranger.close();
  assert.equal(await executions("GET /users"), before + 1);

  step("another device is registered by the link, without a key");
  const laptop = await open();
  const pending = await laptop.signIn(email);
  assert.equal(pending.user.scope, "device:register");
  isRefusal(await laptop.refused("call", "getPasskeys"), "device_verification_required");
  const { Link: link } = await ask(`/mail?to=${email}`);
  await laptop.start(link);
  const deviceToken = await laptop.call("getDeviceRegistrationTokenFromUrl", { url: link });
  const completed = await laptop.call("completeDeviceRegistration", { deviceToken });
  assert.equal(completed.user.scope, "user:basic");
  assert.equal((await laptop.last("POST /deviceRegistration")).headers["x-dynamic-device-signed-nonce"], undefined);
  assert.equal((await laptop.call("getRegisteredDevices")).length, 2);
  await noToken(laptop);

  step("signing out takes the cookie away");
  await laptop.call("logout");
  assert.equal(await sessionOf(laptop), undefined);
  assert.equal((await laptop.state()).signedIn, false);
  await phone.staysSignedIn(user);
}, /Session expired during initialization/); // what the SDK says of a first visit, when there is no cookie yet
