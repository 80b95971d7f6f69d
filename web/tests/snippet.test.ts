import { expect, test } from "vitest";
import { snippet } from "../src/views/dialogs/snippet";

/** With what is marked in brackets. */
const shown = (content: string, query: string) =>
  snippet(content, query)
    .map(({ text, isMarked }) => (isMarked ? `[${text}]` : text))
    .join("");

test.each([
  ["a red fox", "red fox", "a [red] [fox]"],
  ["The RED fox", "red", "The [RED] fox"],
  ["predator and red-hot", "red", "predator and [red]-hot"],
  ["Über die Brücke", "brücke", "Über die [Brücke]"],
  ["好的abc好的", "ABC", "好的[abc]好的"],
  ["这个聊天室的搜索功能", "聊天室的搜索", "这个[聊天室的搜索]功能"],
  ["聊天和室内", "聊天室", "[聊天]和室内"],
  ["好", "好", "[好]"],
  ["what (.*) means", "(.*)", "what (.*) means"],
  ["a.b", "a.b", "[a].[b]"],
  ["nothing of it", "fox", "nothing of it"],
  ["two\n\n  lines", "lines", "two [lines]"],
])("of %j the search for %j marks %j", (content, query, marked) => {
  expect(shown(content, query)).toBe(marked);
});

test("of a long message it is the part with the word, and says so", () => {
  const part = shown(`${"before ".repeat(100)}fox${" after".repeat(100)}`, "fox");
  expect(part).toMatch(/^….*\[fox\].*…$/);
  expect(part.length).toBeLessThan(200);
});

test.each(["🦊", "👩‍👩‍👧", "e\u0301", "🇨🇳"])("no %s is cut in two", (one) => {
  for (const lead of ["", "x", "xx"]) {
    const shown = snippet(`${lead}${one.repeat(300)} fox ${one.repeat(300)}`, "fox");
    for (const { text } of shown) expect(text.replaceAll(one, "")).toMatch(/^[ x…]*(fox)?[ …]*$/);
  }
});
