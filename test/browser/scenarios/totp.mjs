// Enrols an authenticator app, steps up with it, and removes it.
import { ask, assert, executions, exportId, isRefusal, step, tell, totp } from "../story.mjs";

await tell(async (open) => {
  const email = "ann@example.com";
  const ann = await open();
  const { user } = await ann.signIn(email);
  const { walletId } = await ann.wallet("createWalletAccount", { chainName: "SVM", clientKeygenIds: ["one"] });
  const exportCall = `POST /waas/${walletId}/privateKey/export`;

  step("the app is enrolled after a step-up by e-mail; its first code proves it");
  await ann.stepUpByEmail(email, "credential:link");
  const { id: deviceId, secret } = await ann.call("registerTotpMfaDevice");
  await ann.call("authenticateTotpMfaDevice", { code: await totp(secret, -1), deviceId });
  const devices = await ann.call("getMfaDevices");
  assert.deepEqual(devices.map(({ id, type, verified }) => ({ id, type, verified })), [{ id: deviceId, type: "totp", verified: true }]);

  step("from now on it is what checkStepUpAuth offers, and a code by e-mail elevates nobody");
  const check = await ann.call("checkStepUpAuth", { scope: "wallet:export" });
  assert.deepEqual(check.credentials.map(({ format }) => format), ["totp"]);
  const otpVerification = await ann.call("sendEmailOTP", { email });
  const { Code: verificationToken } = await ask(`/mail?to=${email}`);
  const tooWeak = await ann.refused("call", "verifyOTP", { otpVerification, verificationToken, requestedScopes: ["wallet:export"] });
  assert.equal(tooWeak.isAPIError, true);
  assert.equal((await ann.state()).elevated.some(({ scopes }) => scopes.includes("wallet:export")), false);

  step("a wrong code is the SDK's MfaInvalidOtpError");
  const wrong = await ann.refused("call", "authenticateTotpMfaDevice", { code: "000000", deviceId, requestedScopes: ["wallet:export"] });
  assert.equal(wrong.name, "MfaInvalidOtpError");

  step("a right one elevates; the export passes, once");
  await ann.call("authenticateTotpMfaDevice", { code: await totp(secret), deviceId, requestedScopes: ["wallet:export"] });
  assert.ok((await ann.wallet("exportKey", { scope: "wallet:export", walletId, exportId: exportId() })).roomId);
  const key = { walletId, exportWaasWalletPrivateKeyRequest: { exportId: exportId() } };
  isRefusal(await ann.refused("api", { elevatedAccessTokenScope: "wallet:export" }, "exportPrivateKey", key), "elevated_access_token_required");
  assert.equal(await executions(exportCall), 1);

  step("the app is removed with a token for credential:unlink, beside which the SDK sends an empty x-mfa-auth-token");
  await ann.call("authenticateTotpMfaDevice", { code: await totp(secret, 1), deviceId, requestedScopes: ["credential:unlink"] });
  await ann.call("deleteMfaDevice", { deviceId });
  const sent = await ann.last(`DELETE /users/mfa/${deviceId}`);
  assert.ok(sent.headers["x-dyn-elevated-access-token"]);
  assert.equal(sent.headers["x-mfa-auth-token"], "");
  assert.deepEqual(await ann.call("getMfaDevices"), []);
  await ann.staysSignedIn(user);
});
