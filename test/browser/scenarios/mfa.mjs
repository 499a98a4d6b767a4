// An environment below 2026_04_01 that asks for the old MFA token before a key is exported.
import { assert, executions, exportId, isRefusal, step, tell, totp } from "../story.mjs";

await tell(async (open) => {
  const ann = await open();
  const { user } = await ann.signIn("ann@example.com");
  const { walletId } = await ann.wallet("createWalletAccount", { chainName: "SVM", clientKeygenIds: ["one"] });
  const call = `POST /waas/${walletId}/privateKey/export`;
  const request = { walletId, exportWaasWalletPrivateKeyRequest: { exportId: exportId() } };

  step("a user without a second factor is asked for nothing, as the SDK expects");
  assert.equal(await ann.call("isMfaRequiredForAction", { mfaAction: "wallet.waas.export" }), false);
  assert.ok((await ann.wallet("exportKey", { walletId, exportId: exportId() })).roomId);
  assert.equal(await executions(call), 1);
  const { id: deviceId, secret } = await ann.call("registerTotpMfaDevice");
  await ann.call("authenticateTotpMfaDevice", { code: await totp(secret, -1), deviceId });

  step("with one the SDK expects to be asked");
  assert.equal(await ann.call("isMfaRequiredForAction", { mfaAction: "wallet.waas.export" }), true);
  assert.equal(await ann.call("isMfaRequiredForAction", { mfaAction: "wallet.waas.sign" }), false);

  step("an export without a token is refused, which neither the SDK nor the iframe's client takes for a lost session");
  isRefusal(await ann.refused("api", { includeMfaToken: true }, "exportPrivateKey", request), "mfa_token_required");
  const refused = await ann.refused("wallet", "exportKey", { walletId, exportId: exportId() });
  assert.deepEqual(refused.unauthorized, []);
  await ann.staysSignedIn(user);

  step("a code from the authenticator app brings an opaque token for a single use");
  await ann.call("authenticateTotpMfaDevice", { code: await totp(secret), deviceId, createMfaTokenOptions: { singleUse: true } });
  const { mfaToken, elevated } = await ann.state();
  assert.ok(mfaToken && !mfaToken.includes("."));
  assert.deepEqual(elevated, []);

  step("the export passes with it, and the SDK forgets it");
  assert.ok((await ann.wallet("exportKey", { mfa: true, walletId, exportId: exportId() })).roomId);
  assert.equal((await ann.last(call)).headers["x-mfa-auth-token"], mfaToken);
  assert.equal((await ann.state()).mfaToken, null);

  step("sent again it is refused");
  isRefusal(await ann.refused("api", { headers: { "x-mfa-auth-token": mfaToken } }, "exportPrivateKey", request), "mfa_token_consumed");
  assert.equal(await executions(call), 2);

  step("an elevated token is accepted in its place");
  await ann.call("authenticateTotpMfaDevice", { code: await totp(secret, 1), deviceId, requestedScopes: ["wallet:export"] });
  assert.ok((await ann.wallet("exportKey", { scope: "wallet:export", walletId, exportId: exportId() })).roomId);
  assert.equal((await ann.last(call)).headers["x-mfa-auth-token"], undefined);
  assert.equal(await executions(call), 3);
  await ann.staysSignedIn(user);
});
