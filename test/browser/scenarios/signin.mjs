// Signs in, is refused without a step-up and is none the worse for it.
import { assert, executions, isRefusal, prefix, step, tell, world } from "../story.mjs";

await tell(async (open) => {
  const ann = await open();

  step("the first call reads the settings, across origins and with the SDK's own headers");
  const [first] = ann.requests;
  assert.equal(first.url, `${world.api}${prefix}/settings?sdkVersion=ClientSDK%2F1.27.1`);
  assert.equal(first.headers["x-dyn-version"], "ClientSDK/1.27.1");
  assert.equal(first.headers["x-dyn-api-version"], "API/0.0.1125");
  assert.equal(first.headers["x-dynamic-platform"], "web");
  const { settings } = await ann.state();
  assert.equal(settings.sdk.minApiVersion, "2026_04_01");

  step("a new user signs in by a code to their address, and their first device is registered with it");
  const { user } = await ann.signIn("ann@example.com");
  assert.equal(user.email, "ann@example.com");
  assert.equal(user.scope, "user:basic");
  const signIn = await ann.last("POST /emailVerifications/signin");
  for (const header of ["nonce", "publickey", "signed-nonce"]) assert.ok(signIn.headers[`x-dynamic-device-${header}`], header);
  await ann.staysSignedIn(user);

  step("checkStepUpAuth says what the user can step up with");
  const check = await ann.call("checkStepUpAuth", { scope: "credential:link" });
  assert.equal(check.isRequired, true);
  assert.deepEqual(check.credentials.map(({ format }) => format), ["email"]);
  assert.equal(check.defaultCredentialId, check.credentials[0].id);

  step("an operation without a step-up throws the SDK's APIError with Stepward's code");
  isRefusal(await ann.refused("call", "registerTotpMfaDevice"), "elevated_access_token_required", "Elevated access token required");
  const refused = await ann.last("GET /users/mfa/register/totp");
  assert.equal(refused.status, 403);
  assert.equal(refused.headers["x-dyn-elevated-access-token"], undefined);
  assert.equal(await executions("GET /users/mfa/register/totp"), 0);

  step("and does not log the user out");
  await ann.staysSignedIn(user);
});
