// @vitest-environment jsdom
import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, expect, test, vi } from "vitest";
import { language } from "../src/preferences";
import { CopyButton } from "../src/views/CopyButton";

afterEach(() => {
  act(() => render(null, document.body));
  Object.assign(document, { execCommand: undefined });
  Object.defineProperty(navigator, "clipboard", { value: undefined, configurable: true });
});

/** What is told when it is pressed. */
async function pressed(): Promise<string | null | undefined> {
  language.value = "en";
  act(() => render(<CopyButton content="what to copy" />, document.body));
  await act(() => {
    document.querySelector("button")?.click();
    return new Promise((resolve) => setTimeout(resolve)); // what the button does is done
  });
  expect(document.querySelector('[role="status"]')?.textContent).toBe(document.querySelector("button")?.textContent);
  return document.querySelector("button")?.textContent;
}

const clipboard = (writeText: (text: string) => Promise<void>) =>
  Object.defineProperty(navigator, "clipboard", { value: { writeText }, configurable: true });

test("what is copied can be pasted", async () => {
  const written = vi.fn(async () => undefined);
  clipboard(written);
  expect(await pressed()).toBe("Copied");
  expect(written).toHaveBeenCalledWith("what to copy");
});

test("what the browser does not let be copied is not said to be", async () => {
  clipboard(() => Promise.reject(new DOMException("no", "NotAllowedError")));
  expect(await pressed()).toBe("Not copied: select it");
});

test.each([
  [true, "Copied"],
  [false, "Not copied: select it"],
])("nor where there is no clipboard: %s", async (works, said) => {
  Object.assign(document, { execCommand: () => works });
  expect(await pressed()).toBe(said);
  expect(document.querySelector("textarea")).toBeNull();
});
