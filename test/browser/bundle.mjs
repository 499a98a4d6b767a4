// Bundles the app into the folder that is named on the command line: app.js.
import { build } from "esbuild";
import { fileURLToPath } from "node:url";
import { join } from "node:path";

const [folder] = process.argv.slice(2);
await build({
  entryPoints: [fileURLToPath(new URL("app/app.mjs", import.meta.url))],
  outfile: join(folder, "app.js"),
  bundle: true,
  format: "esm",
  target: "chrome120",
  platform: "browser",
  keepNames: true,
  define: { global: "globalThis", "process.env.NODE_ENV": '"production"' },
  logLevel: "error",
});
