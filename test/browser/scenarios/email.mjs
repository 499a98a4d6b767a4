// Steps up by a code to the user's address: a token for many uses, and one for a single use that is spent.
import { assert, executions, exportId, isRefusal, step, tell } from "../story.mjs";

await tell(async (open) => {
  const ann = await open();
  const { user } = await ann.signIn("ann@example.com");

  step("a step-up for credential:link stores a token that is good for many uses");
  await ann.stepUpByEmail("ann@example.com", "credential:link");
  const [link] = (await ann.state()).elevated;
  assert.deepEqual({ scopes: link.scopes, singleUse: link.singleUse }, { scopes: ["credential:link"], singleUse: false });
  assert.ok(Object.values((await ann.state()).stored).some((value) => value.includes(link.token)), "the token survives a reload");

  step("checkStepUpAuth knows it without asking");
  const asked = await executions("POST /stepUp/check");
  assert.deepEqual(await ann.call("checkStepUpAuth", { scope: "credential:link" }), { credentials: [], isRequired: false });
  assert.equal(await executions("POST /stepUp/check"), asked);

  step("the operation passes, twice, with the SDK's own header");
  for (const times of [1, 2]) {
    assert.ok((await ann.call("registerTotpMfaDevice")).secret);
    const sent = await ann.last("GET /users/mfa/register/totp");
    assert.equal(sent.headers["x-dyn-elevated-access-token"], link.token);
    assert.equal(await executions("GET /users/mfa/register/totp"), times);
  }

  step("it is good for nothing else");
  const { walletId } = await ann.wallet("createWalletAccount", { chainName: "SVM", clientKeygenIds: ["one"] });
  const path = `/waas/${walletId}/privateKey/export`;
  const key = { walletId, exportWaasWalletPrivateKeyRequest: { exportId: exportId() } };
  const headers = { "x-dyn-elevated-access-token": link.token };
  isRefusal(await ann.refused("api", { headers }, "exportPrivateKey", key), "elevated_access_token_insufficient_scope");

  step("a step-up for wallet:export stores a token for a single use");
  await ann.stepUpByEmail("ann@example.com", "wallet:export");
  const token = (await ann.state()).elevated.find(({ scopes }) => scopes.includes("wallet:export"));
  assert.equal(token.singleUse, true);

  step("the export passes with it, by the client that runs in Dynamic's iframe, and the SDK forgets it");
  assert.ok((await ann.wallet("exportKey", { scope: "wallet:export", walletId, exportId: exportId() })).roomId);
  const sent = await ann.last(`POST ${path}`);
  assert.equal(sent.headers["x-dyn-elevated-access-token"], token.token);
  assert.equal(sent.headers["x-dyn-wallet-sdk-version"], "1.0.99");
  assert.deepEqual((await ann.state()).elevated.map(({ scopes }) => scopes), [["credential:link"]]);

  step("the next one has no token and is refused: the iframe's client does not call it a lost session");
  const bare = await ann.refused("wallet", "exportKey", { scope: "wallet:export", walletId, exportId: exportId() });
  assert.match(bare.message, /403/);
  assert.deepEqual(bare.unauthorized, []);
  isRefusal(await ann.refused("api", { elevatedAccessTokenScope: "wallet:export" }, "exportPrivateKey", key), "elevated_access_token_required");

  step("the spent token, sent again, is refused, by the SDK's API client and by sdk-api-core 0.40.0");
  const again = { "x-dyn-elevated-access-token": token.token };
  isRefusal(await ann.refused("api", { headers: again }, "exportPrivateKey", key), "elevated_access_token_consumed");
  const plain = await ann.refused("plain", { headers: again }, "exportPrivateKey", key);
  assert.deepEqual([plain.status, plain.body.code], [403, "elevated_access_token_consumed"]);
  assert.equal(await executions(`POST ${path}`), 1);

  step("after all these refusals the user is signed in");
  await ann.staysSignedIn(user);
});
