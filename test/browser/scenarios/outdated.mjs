// An environment that enforces a newer release of the SDK than this one.
import { ask, assert, eventually, executions, step, tell } from "../story.mjs";

const minimum = { ClientSDK: "1.28.0" };

await tell(async (open) => {
  const ann = await open();
  const { user } = await ann.signIn("ann@example.com");

  step("where the minimum only advises, all works as before");
  await ask("/environment", { minimum_sdk: minimum, sdk_minimums: "advise" });
  await eventually("the advice is there", async () => {
    await ann.refused("call", "registerTotpMfaDevice");
    return (await ann.last("GET /users/mfa/register/totp")).response.headers()["stepward-advice"];
  });
  const { challenge } = await (await ann.last("GET /users/mfa/register/totp")).response.json();
  assert.deepEqual(challenge.advice, {
    code: "sdk_version_too_old", sdk: "ClientSDK", minimum_sdk_version: "1.28.0", received_version: "1.27.1",
  });
  await ann.staysSignedIn(user);

  step("where it is enforced, calls throw an APIError that says so, and the user stays signed in");
  await ask("/environment", { minimum_sdk: minimum, sdk_minimums: "enforce" });
  await eventually("a call is refused", () => ann.call("refreshUser").then(() => false, () => true));
  const read = await executions("GET /users");
  const refused = await ann.refused("call", "refreshUser");
  assert.deepEqual([refused.name, refused.status, refused.code], ["APIError", 400, "sdk_version_too_old"]);
  assert.equal(await executions("GET /users"), read);
  const { signedIn, logouts } = await ann.state();
  assert.deepEqual([signedIn, logouts], [true, []]);

  step("once it is met again, the same app works on");
  await ask("/environment", { minimum_sdk: { ClientSDK: "1.27.1" }, sdk_minimums: "enforce" });
  await eventually("the call passes", () => ann.call("refreshUser").then(() => true, () => false));
  await ann.staysSignedIn(user);
});
