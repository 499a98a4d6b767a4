// Opens a page in Debian's Chromium and lets its script call Stepward from another origin; prints what the script could
// read as JSON. Arguments: the page's URL, the URL to call, the headers to send as JSON.
import { launch } from "./chromium.mjs";

const [page, target, headers] = process.argv.slice(2);
const browser = await launch();
try {
  const tab = await browser.newPage();
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
  await browser.close();
}
