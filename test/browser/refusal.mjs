// Opens a page in Debian's Chromium and lets its script call Stepward from another origin; prints what the script could
// read as JSON. Arguments: the page's URL, the URL to call, the headers to send as JSON.
import { chromium } from "playwright-core";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [page, target, headers] = process.argv.slice(2);
const profile = mkdtempSync(join(tmpdir(), "stepward-chromium-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: "/usr/bin/chromium",
  headless: true,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
  ],
});
try {
  const tab = await context.newPage();
  await tab.goto(page);
  const seen = await tab.evaluate(
    async ([url, init]) => {
      try {
        const answer = await fetch(url, { method: "POST", headers: init });
        return { status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.json() };
      } catch (error) {
        return { blocked: String(error) };
      }
    },
    [target, JSON.parse(headers)],
  );
  console.log(JSON.stringify(seen));
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
