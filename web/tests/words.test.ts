import { expect, test } from "vitest";
import { en } from "../src/words/en";
import { zh } from "../src/words/zh";

const SOURCE = Object.entries(
  import.meta.glob<string>("../src/**/*.{ts,tsx}", { query: "?raw", import: "default", eager: true }),
)
  .filter(([path]) => !/words\/(en|zh)\.ts$/.test(path))
  .map(([, text]) => text)
  .join("\n");

/** Everything that is said, by its path: a sentence, or how many things one takes. */
function said(words: object, path = ""): [path: string, what: string | number][] {
  return Object.entries(words).flatMap(([name, value]: [string, unknown]) => {
    const place = path ? `${path}.${name}` : name;
    if (typeof value === "string") return [[place, value]];
    if (typeof value === "function") return [[place, value.length]];
    return said(value as object, place);
  });
}

test("both languages say the same things", () => {
  expect(said(zh).map(([path]) => path)).toEqual(said(en).map(([path]) => path));
});

test("nothing is said by no word at all", () => {
  for (const [path, what] of [...said(en), ...said(zh)]) if (what === "") expect.fail(`${path} is empty`);
});

test("no English is left in what is said in Chinese", () => {
  const english = new Map(said(en));
  const same = said(zh).filter(([path, what]) => typeof what === "string" && what === english.get(path));
  expect(same).toEqual([]);
});

test("the page says all of it somewhere", () => {
  const taken = [...SOURCE.matchAll(/\{([^{}]*)\} = words\.value\b/g)].flatMap(([, names = ""]) =>
    names.split(",").map((one) => one.split(":")[0]?.trim()),
  );
  const used = new Set([
    ...taken,
    ...Array.from(SOURCE.matchAll(/\b(?:words\.value|en|zh)\.(\w+)/g), ([, name]) => name),
  ]);
  expect(Object.keys(en).filter((name) => !used.has(name))).toEqual([]);
});
