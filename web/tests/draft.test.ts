// @vitest-environment jsdom
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Me } from "../src/wire";

const ANYONE: Me = { kind: "anyone", tenant: "default", name: null };
const ann: Me = { kind: "person", tenant: "default", name: "ann" };

/** The module as a page that is loaded anew has it, in which that one sits. */
async function page(who: Me = ANYONE) {
  vi.resetModules();
  const app = await import("../src/app");
  app.who.value = who;
  return import("../src/views/draft");
}

const keptNames = () => Object.keys(localStorage).filter((name) => name.startsWith("m3.draft/"));

beforeEach(() => {
  localStorage.clear();
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

test("what is typed in each thread is there after the page was loaded again", async () => {
  const { writeDraft } = await page();
  writeDraft("one", "half a");
  writeDraft("one", "half a thou");
  writeDraft("two", "another");
  const { draftOf } = await page();
  expect([draftOf("one").value, draftOf("two").value, draftOf("three").value]).toEqual(["half a thou", "another", ""]);
});

test("nothing is kept of what was sent or taken out again", async () => {
  const { draftOf, writeDraft } = await page();
  writeDraft("one", "said");
  writeDraft("one", "");
  expect(draftOf("one").value).toBe("");
  expect(keptNames()).toEqual([]);
});

test("nobody finds what somebody else of this browser has typed", async () => {
  (await page(ann)).writeDraft("one", "of ann");
  expect((await page({ ...ann, name: "bob" })).draftOf("one").value).toBe("");
  expect((await page({ ...ann, tenant: "other" })).draftOf("one").value).toBe("");
  expect((await page(ann)).draftOf("one").value).toBe("of ann");
});

test("who goes leaves nothing of what they typed, and to others what is theirs", async () => {
  (await page({ ...ann, name: "bob" })).writeDraft("one", "of bob");
  const { forgetDrafts, writeDraft } = await page(ann);
  writeDraft("one", "of ann");
  writeDraft("two", "of ann too");
  forgetDrafts("default.ann");
  expect(keptNames()).toEqual(["m3.draft/default.bob/one"]);
});

test("what another page of the browser types or sends is so here too", async () => {
  const here = await page();
  const draft = here.draftOf("one");
  const there = await page();
  there.writeDraft("one", "typed there");
  dispatchEvent(new StorageEvent("storage", { key: "m3.draft/open/one" }));
  expect(draft.value).toBe("typed there");
  there.writeDraft("one", "");
  dispatchEvent(new StorageEvent("storage", { key: "m3.draft/open/one" }));
  expect(draft.value).toBe("");
});

test("a browser keeps the newest of many, and the beginning of one that is too long", async () => {
  vi.useFakeTimers();
  const { LONGEST, MOST, draftOf, writeDraft } = await page();
  for (let number = 0; number <= MOST; number++) {
    vi.setSystemTime(number);
    writeDraft(`t${number}`, `text ${number}`);
  }
  expect(keptNames()).toHaveLength(MOST);
  expect(keptNames()).not.toContain("m3.draft/open/t0");
  expect(draftOf("t0").value).toBe("text 0"); // as long as the page is there
  writeDraft("t1", "🦊".repeat(LONGEST));
  expect((await page()).draftOf("t1").value).toBe("🦊".repeat(LONGEST / 2));
});

test("a browser that keeps nothing has what is typed as long as the page is there", async () => {
  vi.spyOn(Storage.prototype, "setItem").mockImplementation(() => {
    throw new DOMException("full", "QuotaExceededError");
  });
  const { draftOf, writeDraft } = await page();
  writeDraft("one", "half a thou");
  expect(draftOf("one").value).toBe("half a thou");
});

test.each(['"text"', "{}", '{"text":1,"at":1}', "["])("what was kept otherwise, as %s, is nothing", async (value) => {
  localStorage.setItem("m3.draft/open/one", value);
  expect((await page()).draftOf("one").value).toBe("");
});
