import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { defineConfig, type Plugin } from "vite";

const OUT = "../src/ramify/serving/page";

/** One HTML file with script and style inside, for traces that are opened from disk. */
function inline(): Plugin {
  return {
    name: "inline",
    enforce: "post",
    generateBundle(_, bundle) {
      const parts = { js: "", css: "" };
      for (const [name, file] of Object.entries(bundle)) {
        if (file.type === "chunk") parts.js += file.code;
        else if (name.endsWith(".css")) parts.css += String(file.source);
        else continue;
        delete bundle[name];
      }
      const page = bundle["viewer.html"];
      if (page?.type !== "asset") throw new Error("the viewer's page was not built");
      page.source = String(page.source)
        .replace(/\s*<script[^>]*type="module"[^>]*><\/script>/u, "")
        .replace(/\s*<link[^>]*rel="stylesheet"[^>]*>/u, "")
        .replace("</head>", () => `  <!--policy-->\n    <style>${parts.css}</style>\n  </head>`)
        .replace("</body>", () => `  <!--trace-->\n    <script>${parts.js.replaceAll("</script", "<\\/script")}</script>\n  </body>`);
    },
  };
}

/** Notes the sources that were built, so that a test can tell where the package holds something else than they make. */
function stamp(): Plugin {
  const inputs = ["index.html", "viewer.html", "package-lock.json", "vite.config.ts"];
  const files = [...inputs, ...readdirSync("src", { recursive: true, encoding: "utf8" }).map((name) => join("src", name))];
  return {
    name: "stamp",
    closeBundle() {
      const digest = createHash("sha256");
      for (const file of files.filter((name) => /\.\w+$/u.test(name)).sort()) digest.update(`${file}\n`).update(readFileSync(file));
      writeFileSync(`${OUT}/built-from.sha256`, `${digest.digest("hex")}\n`);
    },
  };
}

export default defineConfig(({ mode }) => {
  const viewer = mode === "viewer";
  return {
    base: "./",
    plugins: viewer ? [inline(), stamp()] : [],
    build: {
      target: "es2022",
      outDir: viewer ? OUT : `${OUT}/static`,
      emptyOutDir: !viewer,
      modulePreload: { polyfill: false },
      cssCodeSplit: !viewer, // split style would be put in by script, which the policy of the file forbids
      rollupOptions: {
        input: viewer ? "viewer.html" : "index.html",
        output: viewer ? { format: "iife" } : { entryFileNames: "assets/[name].js", assetFileNames: "assets/[name][extname]" },
      },
    },
  };
});
