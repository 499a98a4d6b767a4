// Steps up by an assertion of the app's own backend. No person is asked anything, and the session stays as it is.
import { ask, assert, executions, exportId, isRefusal, step, tell } from "../story.mjs";

await tell(async (open) => {
  const ann = await open();
  step("the user signs in by a token of the app's own backend");
  const { user } = await ann.call("signInWithExternalJwt", { externalJwt: await ask("/assertion", { sub: "ann" }) });
  const { token } = await ann.state();
  const { walletId } = await ann.wallet("createWalletAccount", { chainName: "SVM", clientKeygenIds: ["one"] });

  step("an assertion with a scope elevates, and the session token is the same");
  const externalJwt = await ask("/assertion", { sub: "ann", scope: "wallet:export" });
  await ann.call("requestExternalAuthElevatedToken", { externalJwt });
  const after = await ann.state();
  assert.equal(after.token, token);
  assert.deepEqual(after.elevated.map(({ scopes, singleUse }) => ({ scopes, singleUse })), [{ scopes: ["wallet:export"], singleUse: true }]);

  step("the export passes, once");
  assert.ok((await ann.wallet("exportKey", { scope: "wallet:export", walletId, exportId: exportId() })).roomId);
  const key = { walletId, exportWaasWalletPrivateKeyRequest: { exportId: exportId() } };
  isRefusal(await ann.refused("api", { elevatedAccessTokenScope: "wallet:export" }, "exportPrivateKey", key), "elevated_access_token_required");
  assert.equal(await executions(`POST /waas/${walletId}/privateKey/export`), 1);

  step("an assertion works once, and speaks for its own user");
  for (const jwt of [externalJwt, await ask("/assertion", { sub: "bob", scope: "wallet:export" })]) {
    await ann.refused("call", "requestExternalAuthElevatedToken", { externalJwt: jwt });
    const { status } = await ann.last("POST /externalAuth/verify");
    assert.ok(status >= 400 && status < 500, `got ${status}`);
  }

  step("and the console's scopes cannot be asked for, whoever asserts them");
  const foreign = await ask("/assertion", { sub: "ann", scope: "console:settings:update" });
  const asked = await executions("POST /externalAuth/verify");
  isRefusal(await ann.refused("call", "requestExternalAuthElevatedToken", { externalJwt: foreign }), "forbidden");
  const answer = await (await ann.last("POST /externalAuth/verify")).response.json();
  assert.equal(answer.policy_code, "scope_not_requestable");
  assert.equal(await executions("POST /externalAuth/verify"), asked);
  assert.deepEqual((await ann.state()).elevated, []);
  await ann.staysSignedIn(user);
});
