// Signs in by a social account at an OpenID provider, steps up by it, and passes once.
import { assert, executions, exportId, isRefusal, step, tell, world } from "../story.mjs";

await tell(async (open) => {
  const ann = await open();
  // away sends the browser to the provider and has the person there say who they are.
  const away = async (email) => {
    ann.tab.evaluate((redirectUrl) => window.app.call("signInWithSocialRedirect", { provider: "google", redirectUrl }), world.page + "/").catch(() => {}); // the page goes away
    await ann.tab.waitForURL("**/authorize?**");
    await ann.tab.fill("input[name=email]", email);
    await ann.tab.click("button");
    await ann.tab.waitForURL(`${world.page}/?**`);
    await ann.tab.evaluate(() => window.app.ready());
    return ann.tab.url();
  };
  const back = (url, requestedScopes) =>
    ann.tab.evaluate(([url, requestedScopes]) => window.app.call("completeSocialRedirect", { url: new URL(url), requestedScopes }), [url, requestedScopes]);

  step("the person says who they are at the provider, and the app is signed in");
  const { value: user, error } = await back(await away("ann@social.example"));
  assert.ok(user?.id, JSON.stringify(error));
  assert.deepEqual((await ann.call("checkStepUpAuth", { scope: "wallet:export" })).credentials.map(({ format }) => format), ["oauth"]);
  const { walletId } = await ann.wallet("createWalletAccount", { chainName: "SVM", clientKeygenIds: ["one"] });

  step("the same account elevates, and the export passes, once");
  const elevated = await back(await away("ann@social.example"), ["wallet:export"]);
  assert.ok(elevated.value?.id, JSON.stringify(elevated.error));
  assert.ok((await ann.wallet("exportKey", { scope: "wallet:export", walletId, exportId: exportId() })).roomId);
  const key = { walletId, exportWaasWalletPrivateKeyRequest: { exportId: exportId() } };
  isRefusal(await ann.refused("api", { elevatedAccessTokenScope: "wallet:export" }, "exportPrivateKey", key), "elevated_access_token_required");
  assert.equal(await executions(`POST /waas/${walletId}/privateKey/export`), 1);

  step("another person's account elevates nobody");
  const foreign = await back(await away("bob@social.example"), ["wallet:export"]);
  assert.equal(foreign.error?.isAPIError, true);
  assert.equal((await ann.state()).elevated.some(({ scopes }) => scopes.includes("wallet:export")), false);
  await ann.staysSignedIn(user);
});
