// Linking an address: a call on which this SDK forgets the token that it has.
import { ask, assert, executions, isRefusal, step, tell, world } from "../story.mjs";

await tell(async (open) => {
  const ann = await open();
  const { user } = await ann.signIn("ann@example.com");
  await ann.stepUpByEmail("ann@example.com", "credential:link");
  const verified = await executions("POST /emailVerifications/verify");

  step("a second address is linked: the SDK has a token for it, and does not send it");
  const otpVerification = await ann.call("sendEmailOTP", { email: "ann@example.org" });
  const { Code: verificationToken } = await ask("/mail?to=ann@example.org");
  isRefusal(await ann.refused("call", "verifyOTP", { otpVerification, verificationToken }), "elevated_access_token_required");
  const sent = await ann.last("POST /emailVerifications/verify");
  assert.equal(sent.headers["x-dyn-elevated-access-token"], undefined);
  assert.equal(await executions("POST /emailVerifications/verify"), verified);

  step("the challenge says so, and what an app can do");
  const { challenge } = await sent.response.json();
  assert.match(challenge.client_gap, /ClientSDK attaches no elevated access token when it links.*coreConfig\.fetch/);

  step("an app that does it links the address, after a reload and with the same token");
  await ann.start(world.page + "/?attaching");
  const linked = await ann.call("verifyOTP", { otpVerification, verificationToken });
  assert.ok(linked.user.verifiedCredentials.some(({ email }) => email === "ann@example.org"));
  assert.ok((await ann.last("POST /emailVerifications/verify")).headers["x-dyn-elevated-access-token"]);
  await ann.staysSignedIn(user);
});
