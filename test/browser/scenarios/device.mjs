// A second device has to be registered by the link in a mail, is listed, and can be forgotten.
import { ask, assert, eventually, executions, isRefusal, step, tell, world } from "../story.mjs";

await tell(async (open) => {
  const email = "ann@example.com";
  const phone = await open();
  const { user } = await phone.signIn(email);
  assert.equal((await phone.call("getRegisteredDevices")).length, 1);

  step("signing in on an unknown device succeeds, and the SDK knows that it has to be registered");
  const laptop = await open();
  const pending = await laptop.signIn(email);
  assert.equal(pending.user.id, user.id);
  assert.equal(pending.user.scope, "device:register");
  assert.equal(await laptop.call("isDeviceRegistrationRequired", pending.user), true);

  step("until then all else is refused, with a code of its own and without logging out");
  isRefusal(await laptop.refused("call", "refreshUser"), "device_verification_required");
  isRefusal(await laptop.refused("call", "getPasskeys"), "device_verification_required");
  isRefusal(await laptop.refused("call", "registerTotpMfaDevice"), "device_verification_required");
  assert.equal(await executions("GET /users/mfa/register/totp"), 0);
  const waiting = await laptop.state();
  assert.deepEqual([waiting.signedIn, waiting.logouts], [true, []]);

  step("somebody else's browser cannot use the link");
  const { Link: link } = await ask(`/mail?to=${email}`);
  assert.ok(link.startsWith(world.page + "/?deviceRegistrationToken="), link);
  const mallory = await open();
  await mallory.signIn("mallory@example.com");
  await mallory.start(link);
  const deviceToken = await mallory.call("getDeviceRegistrationTokenFromUrl", { url: link });
  const stolen = await mallory.refused("call", "completeDeviceRegistration", { deviceToken });
  assert.equal(stolen.isAPIError, true);

  step("the link, opened on the laptop, registers it");
  await laptop.start(link);
  assert.equal(await laptop.call("detectDeviceRegistrationRedirect", { url: link }), true);
  const completed = await laptop.call("completeDeviceRegistration", { deviceToken });
  assert.equal(completed.user.scope, "user:basic");
  const sent = await laptop.last("POST /deviceRegistration");
  assert.equal(sent.headers["x-dynamic-device-registration-token"], deviceToken);
  assert.ok(sent.headers["x-dynamic-device-signed-nonce"]);
  await laptop.staysSignedIn(user);

  step("both devices are listed");
  const devices = await laptop.call("getRegisteredDevices");
  assert.deepEqual(devices.map(({ isCurrentDevice }) => isCurrentDevice), [false, true]);

  step("the session of a device that another one forgets is over; the iframe's client tells the SDK to sign out, the SDK itself waits");
  const { walletId } = await phone.wallet("createWalletAccount", { chainName: "SVM", clientKeygenIds: ["one"] });
  await laptop.call("revokeRegisteredDevice", { deviceRegistrationId: devices[0].id });
  assert.equal((await laptop.call("getRegisteredDevices")).length, 1);
  await laptop.staysSignedIn(user);
  // Until the gate asks again it is the issuer that refuses.
  await eventually("the phone is refused", async () => (await phone.refused("call", "refreshUser")).code === "session_invalid");
  const lost = await phone.refused("call", "refreshUser");
  assert.deepEqual([lost.name, lost.status, lost.code], ["APIError", 401, "session_invalid"]);
  assert.deepEqual((await phone.state()).logouts, []);
  const signing = await phone.refused("wallet", "signMessage", { walletId, message: "68656c6c6f" });
  assert.deepEqual(signing.unauthorized, ["signMessage"]);

  step("a device that forgets itself is signed out by the SDK");
  laptop.expected.push(/Failed to revoke session APIError: Unauthorized/); // it revokes once more, with the session that ended
  await laptop.call("revokeRegisteredDevice", { deviceRegistrationId: devices[1].id });
  const after = await laptop.state();
  assert.deepEqual([after.signedIn, after.logouts], [false, ["device-revoked"]]);
});
