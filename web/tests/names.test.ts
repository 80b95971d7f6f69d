// @vitest-environment jsdom
import { expect, test } from "vitest";
import { someName } from "../src/names";
import { isName, language } from "../src/preferences";
import text from "./names.json?raw"; // Vite does not take half a character in JSON

const examples: Record<"names" | "refused", string[]> = JSON.parse(text);

test.each(examples.names)("somebody may be called %j, as in the room", (name) => {
  expect(isName(name)).toBe(true);
});

test.each([...examples.refused, "x".repeat(33)])("nobody may be called %j, as in the room", (name) => {
  expect(isName(name)).toBe(false);
});

test("nobody may be called what stands for having no name", () => {
  expect(isName("anyone")).toBe(false);
});

test.each(["en", "zh-CN"] as const)("whoever has no name yet gets one that the room takes, in %s", (spoken) => {
  language.value = spoken;
  for (let times = 0; times < 100; times++) expect(isName(someName())).toBe(true);
});
