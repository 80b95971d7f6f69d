import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: {
    alias: { react: "preact/compat", "react-dom": "preact/compat", "react/jsx-runtime": "preact/jsx-runtime" },
  },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "../services/gateway/page",
    emptyOutDir: true,
    license: { fileName: "licenses.md" }, // of what is built in, beside the page and not served
    assetsInlineLimit: 0, // the policy of the page lets nothing be part of its text
    modulePreload: { polyfill: false },
    rolldownOptions: {
      onwarn(warning, tell) {
        if (warning.code !== "MODULE_LEVEL_DIRECTIVE") tell(warning); // virtua's "use client" is for servers of React
      },
    },
  },
  // As objects, so that the room sees the host that the browser asked: it answers pages of that one alone.
  test: { setupFiles: "tests/setup.ts" },
  server: {
    proxy: { "/api": { target: "http://127.0.0.1:8888" }, "/ws": { target: "ws://127.0.0.1:8888", ws: true } },
  },
});
