import { expect, test } from "vitest";
import { cut, firstOf, whole } from "../src/cutting";

test.each(["🦊", "👩‍👩‍👧‍👦", "👍🏽", "e\u0301", "🇨🇳", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"])("no %s is cut in two", (one) => {
  const text = one.repeat(50);
  for (let most = 1; most < 60; most++) {
    expect(cut(text, most)).toBe(`${one.repeat(Math.floor(most / one.length))}…`);
  }
});

test("what is short enough stays as it is", () => {
  expect(cut("short", 5)).toBe("short");
  expect(whole("short", 99)).toBe(5);
});

test("a letter with more accents than anybody reads is cut", () => {
  expect(cut(`a${"\u0301".repeat(65_536)}`, 80)).toHaveLength(81);
  expect(cut(`a${"\u{e0100}".repeat(100)}`, 80)).not.toMatch(/[\ud800-\udbff]…$/);
});

test.each([
  ["ann", "a"],
  ["🇨🇳 team", "🇨🇳"],
  ["", undefined],
])("%j begins with %j", (text, first) => {
  expect(firstOf(text)).toBe(first);
});
