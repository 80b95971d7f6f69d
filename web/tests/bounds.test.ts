import { expect, test } from "vitest";
import { BOUNDS, numberIn } from "../src/views/dialogs/bounds";

test.each(["", "  "])("%j is no number of its own", (typed) => {
  expect(numberIn(typed, BOUNDS.api_cap)).toBeNull();
});

test.each([
  ["1", 1],
  [" 1000 ", 1000],
  ["007", 7],
])("%j is taken as %j messages", (typed, number) => {
  expect(numberIn(typed, BOUNDS.api_cap)).toBe(number);
});

test.each(["0", "1001", "1.5", "-1", "ten", "1e2", "0x10", "1,000", "Infinity", "NaN"])(
  "%j messages are not",
  (typed) => {
    expect(numberIn(typed, BOUNDS.api_cap)).toBeUndefined();
  },
);

test.each([
  ["0.001", 0.001],
  [".5", 0.5],
  ["86400", 86_400],
])("%j is taken as %j seconds", (typed, number) => {
  expect(numberIn(typed, BOUNDS.api_ttl)).toBe(number);
});

test.each(["0", "0.0001", "86400.1", "-5"])("%j seconds are not", (typed) => {
  expect(numberIn(typed, BOUNDS.api_ttl)).toBeUndefined();
});

test("no time is one in which nothing is merged", () => {
  expect(numberIn("0", BOUNDS.merge_window)).toBe(0);
});
