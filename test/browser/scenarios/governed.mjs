// A governed change answers 202 and wants the call again: the single-use token has to last for both.
import { assert, executions, step, tell } from "../story.mjs";

await tell(async (open) => {
  const email = "ann@example.com";
  const ann = await open();
  const { user } = await ann.signIn(email);
  const businessAccountId = crypto.randomUUID();
  const call = `POST /businessAccounts/${businessAccountId}/transferOwnership`;
  const newOwnerUserId = crypto.randomUUID();

  step("the transfer of a business account is refused without a step-up");
  const bare = await ann.refused("call", "transferBusinessAccountOwnership", { businessAccountId, newOwnerUserId });
  assert.deepEqual([bare.code, bare.status], ["elevated_access_token_required", 403]);
  await ann.staysSignedIn(user);

  step("sdk-api-core 0.40.0 is answered 202 with an intent, and its token is not spent");
  await ann.stepUpByEmail(email, "business_account:transfer_ownership");
  const token = await ann.call("getElevatedAccessToken", { scope: "business_account:transfer_ownership" });
  const headers = { "x-dyn-elevated-access-token": token };
  const transfer = (more) => [
    { headers, as: "json" }, "sdkTransferBusinessAccountOwnership",
    { businessAccountId, transferBusinessAccountOwnershipSdkRequest: { newOwnerUserId, ...more } },
  ];
  const { reason, intent } = await ann.plain(...transfer());
  assert.equal((await ann.last(call)).status, 202);
  assert.equal(reason, "INTENT_REQUIRED");

  step("the same token brings the intent back, and is spent then");
  await ann.plain(...transfer({ intent, intentSignature: "00".repeat(64) }));
  assert.equal((await ann.last(call)).status, 200);
  const spent = await ann.refused("plain", ...transfer({ intent, intentSignature: "00".repeat(64) }));
  assert.deepEqual([spent.status, spent.body.code], [403, "elevated_access_token_consumed"]);
  assert.equal(await executions(call), 2);

  step("the SDK's own function does not know this 202: it fails where it reads the account, and its token is still good");
  await ann.stepUpByEmail(email, "business_account:transfer_ownership");
  const confused = await ann.refused("call", "transferBusinessAccountOwnership", { businessAccountId, newOwnerUserId });
  assert.equal(confused.name, "TypeError");
  const sent = await ann.last(call);
  assert.equal(sent.status, 202);
  headers["x-dyn-elevated-access-token"] = sent.headers["x-dyn-elevated-access-token"];
  await ann.plain(...transfer());
  assert.equal((await ann.last(call)).status, 202);
  await ann.staysSignedIn(user);
});
