// @vitest-environment jsdom
import { afterEach, expect, test, vi } from "vitest";
import { COMPOSER, isForWhatWentAway, isTyped, pressOnce, typeOn } from "../src/views/keyboard";

const enter = (time: number, repeat = false): KeyboardEvent =>
  Object.defineProperty(new KeyboardEvent("keydown", { key: "Enter", repeat }), "timeStamp", { value: time });

afterEach(() => {
  isTyped();
  vi.restoreAllMocks();
});

test("Enter at once after the keyboard was handed over is for the button that went away, and later for the composer", () => {
  document.body.innerHTML = `<textarea id="${COMPOSER}"></textarea>`;
  vi.spyOn(performance, "now").mockReturnValue(1_000);
  typeOn();
  expect(document.activeElement?.id).toBe(COMPOSER);
  expect([990, 1_010, 1_499].map((time) => isForWhatWentAway(enter(time)))).toEqual([true, true, true]);
  expect(isForWhatWentAway(enter(1_500))).toBe(false);
});

test("Enter after something was typed is for the composer, however soon", () => {
  vi.spyOn(performance, "now").mockReturnValue(1_000);
  typeOn();
  isTyped();
  expect(isForWhatWentAway(enter(1_010))).toBe(false);
});

test("a key that is held down is for what it was pressed on", () => {
  expect(isForWhatWentAway(enter(9_000, true))).toBe(true);
});

test("a key that is held presses no button, and goes on making lines", () => {
  pressOnce();
  document.body.innerHTML = "<button>A</button><textarea></textarea>";
  const isDone = (selector: string, repeat: boolean) =>
    document
      .querySelector(selector)
      ?.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", repeat, bubbles: true, cancelable: true }));
  expect([isDone("button", false), isDone("button", true), isDone("textarea", true)]).toEqual([true, false, true]);
});
