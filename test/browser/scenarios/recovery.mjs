// Steps up with a recovery code, which works once.
import { assert, executions, exportId, step, tell, totp } from "../story.mjs";

await tell(async (open) => {
  const email = "ann@example.com";
  const ann = await open();
  const { user } = await ann.signIn(email);
  const { walletId } = await ann.wallet("createWalletAccount", { chainName: "SVM", clientKeygenIds: ["one"] });

  step("a user with an authenticator app has recovery codes");
  await ann.stepUpByEmail(email, "credential:link");
  const { id: deviceId, secret } = await ann.call("registerTotpMfaDevice");
  await ann.call("authenticateTotpMfaDevice", { code: await totp(secret), deviceId });
  const { recoveryCodes } = await ann.call("getMfaRecoveryCodes");
  assert.ok(recoveryCodes.length > 1);

  step("one of them elevates, and the export passes");
  const [code] = recoveryCodes;
  await ann.call("authenticateMfaRecoveryCode", { code, requestedScopes: ["wallet:export"] });
  assert.ok((await ann.wallet("exportKey", { scope: "wallet:export", walletId, exportId: exportId() })).roomId);

  step("but only once");
  const again = await ann.refused("call", "authenticateMfaRecoveryCode", { code, requestedScopes: ["wallet:export"] });
  assert.equal(again.status ?? 422, 422);
  assert.deepEqual((await ann.state()).elevated.filter(({ scopes }) => scopes.includes("wallet:export")), []);
  await ann.refused("wallet", "exportKey", { scope: "wallet:export", walletId, exportId: exportId() });
  assert.equal(await executions(`POST /waas/${walletId}/privateKey/export`), 1);
  await ann.staysSignedIn(user);
});
