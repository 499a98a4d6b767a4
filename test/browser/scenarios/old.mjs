// The same app in an environment that stays below 2026_04_01.
import { ask, assert, eventually, executions, exportId, isRefusal, step, tell } from "../story.mjs";

await tell(async (open) => {
  const ann = await open();
  assert.equal((await ann.state()).settings.sdk.minApiVersion, "2026_01_01");
  const { user } = await ann.signIn("ann@example.com");

  step("a credential is linked without a step-up");
  assert.ok((await ann.call("registerTotpMfaDevice")).secret);
  assert.equal((await ann.last("GET /users/mfa/register/totp")).headers["x-dyn-elevated-access-token"], undefined);
  assert.equal(await executions("GET /users/mfa/register/totp"), 1);

  step("a key is exported without one, since the environment asks for no MFA");
  const { walletId } = await ann.wallet("createWalletAccount", { chainName: "SVM", clientKeygenIds: ["one"] });
  assert.ok((await ann.wallet("exportKey", { walletId, exportId: exportId() })).roomId);
  assert.equal(await executions(`POST /waas/${walletId}/privateKey/export`), 1);

  step("a step-up that an app asks for all the same is stored, and does no harm");
  await ann.stepUpByEmail("ann@example.com", "wallet:export");
  assert.ok((await ann.wallet("exportKey", { scope: "wallet:export", walletId, exportId: exportId() })).roomId);
  assert.ok((await ann.last(`POST /waas/${walletId}/privateKey/export`)).headers["x-dyn-elevated-access-token"]);
  await ann.staysSignedIn(user);

  step("the floor is raised while the app is open: its next calls are refused, and it steps up like any other");
  await ask("/environment", { minimum_api_version: "2026_04_01" });
  await eventually("a call is refused", () => ann.call("registerTotpMfaDevice").then(() => false, () => true));
  const seen = await executions("GET /users/mfa/register/totp");
  isRefusal(await ann.refused("call", "registerTotpMfaDevice"), "elevated_access_token_required");
  assert.equal(await executions("GET /users/mfa/register/totp"), seen);
  await ann.stepUpByEmail("ann@example.com", "credential:link");
  assert.ok((await ann.call("registerTotpMfaDevice")).secret);
  await ann.staysSignedIn(user);
});
