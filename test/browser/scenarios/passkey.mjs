// Registers a passkey in Chromium's virtual authenticator, steps up with it, and deletes it.
import { assert, executions, exportId, isRefusal, step, tell } from "../story.mjs";

await tell(async (open) => {
  const email = "ann@example.com";
  const ann = await open();
  await ann.addAuthenticator();
  const { user } = await ann.signIn(email);
  const { walletId } = await ann.wallet("createWalletAccount", { chainName: "SVM", clientKeygenIds: ["one"] });

  step("registering a passkey needs a step-up");
  isRefusal(await ann.refused("call", "registerPasskey"), "elevated_access_token_required");
  assert.equal(await executions("POST /users/passkeys/register"), 0);
  await ann.staysSignedIn(user);

  step("after one it is registered, with the SDK's own header");
  await ann.stepUpByEmail(email, "credential:link");
  await ann.call("registerPasskey");
  assert.ok((await ann.last("POST /users/passkeys/register")).headers["x-dyn-elevated-access-token"]);
  const [passkey, ...others] = await ann.call("getPasskeys");
  assert.ok(passkey.id);
  assert.deepEqual(others, []);
  assert.deepEqual((await ann.call("checkStepUpAuth", { scope: "wallet:export" })).credentials.map(({ format }) => format), ["passkey"]);

  step("the passkey elevates, and the export passes, once");
  await ann.call("authenticatePasskeyMFA", { requestedScopes: ["wallet:export"] });
  assert.ok((await ann.wallet("exportKey", { scope: "wallet:export", walletId, exportId: exportId() })).roomId);
  const key = { walletId, exportWaasWalletPrivateKeyRequest: { exportId: exportId() } };
  isRefusal(await ann.refused("api", { elevatedAccessTokenScope: "wallet:export" }, "exportPrivateKey", key), "elevated_access_token_required");
  assert.equal(await executions(`POST /waas/${walletId}/privateKey/export`), 1);

  step("deleting it needs another one");
  isRefusal(await ann.refused("call", "deletePasskey", { passkeyId: passkey.id }), "elevated_access_token_required");
  await ann.call("authenticatePasskeyMFA", { requestedScopes: ["credential:unlink"] });
  await ann.call("deletePasskey", { passkeyId: passkey.id });
  assert.deepEqual(await ann.call("getPasskeys"), []);
  assert.equal(await executions("DELETE /users/passkeys"), 1);
  await ann.staysSignedIn(user);
});
