// An environment that asks for a step-up before it signs: signatures come as server-sent events.
import { assert, executions, step, tell } from "../story.mjs";

await tell(async (open) => {
  const ann = await open();
  const { user } = await ann.signIn("ann@example.com");

  step("a new wallet needs no step-up, and its two events arrive one after the other");
  const { walletId, address } = await ann.wallet("createWalletAccount", { chainName: "SVM", clientKeygenIds: ["one"] });
  assert.ok(walletId && address);
  const call = `POST /waas/${walletId}/signMessage`;
  const message = { walletId, message: "68656c6c6f" };

  step("a signature without a step-up is refused, and the iframe's client does not call it a lost session");
  const refused = await ann.refused("wallet", "signMessage", message);
  assert.match(refused.message, /403/);
  assert.deepEqual(refused.unauthorized, []);
  assert.equal(await executions(call), 0);
  await ann.staysSignedIn(user);

  step("after a step-up for wallet:sign the room opens while the ceremony is still going on");
  await ann.stepUpByEmail("ann@example.com", "wallet:sign");
  const began = Date.now();
  const room = await ann.wallet("signMessage", { ...message, scope: "wallet:sign" });
  const took = Date.now() - began;
  assert.ok(room.roomId);
  assert.ok(took < 4_000, `the first event took ${took} ms: it has waited for the second`);
  assert.equal((await ann.last(call)).headers.accept, "text/event-stream");

  step("sdk-api-core 0.40.0 reads both events of the next one");
  await ann.stepUpByEmail("ann@example.com", "wallet:sign");
  const token = await ann.call("getElevatedAccessToken", { scope: "wallet:sign" });
  const headers = { "x-dyn-elevated-access-token": token, Accept: "text/event-stream" };
  const request = { walletId, signMessageWithWaasRequest: { message: "68656c6c6f" } };
  const events = await ann.plain({ headers, as: "events" }, "signMessage", request);
  assert.deepEqual(events.map(({ event }) => event), ["room_created", "ceremony_complete"]);
  assert.match(events[1].data.signature, /^[0-9a-f]{128}$/);

  step("and is refused the same token a second time");
  const again = await ann.refused("plain", { headers, as: "events" }, "signMessage", request);
  assert.deepEqual([again.status, again.body.code], [403, "elevated_access_token_consumed"]);
  assert.equal(await executions(call), 2);
  await ann.staysSignedIn(user);
});
