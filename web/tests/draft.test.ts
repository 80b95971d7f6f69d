// @vitest-environment jsdom
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Me } from "../src/wire";

const ANYONE: Me = { kind: "anyone", tenant: "default", name: null };
const ann: Me = { kind: "person", tenant: "default", name: "ann" };

/** What a tab keeps for itself, which a page that is loaded anew in it finds. */
class Tab implements Storage {
  [name: string]: unknown;
  get length(): number {
    return Object.keys(this).length;
  }
  key = undefined as never;
  clear = undefined as never;
  getItem(name: string): string | null {
    return (this[name] as string | undefined) ?? null;
  }
  setItem(name: string, value: string): void {
    this[name] = value;
  }
  removeItem(name: string): void {
    delete this[name];
  }
}

/** The module as a page that is loaded anew has it, in that tab or one of its own, in which that one sits. */
async function page(who: Me = ANYONE, tab = new Tab()) {
  vi.resetModules();
  const app = await import("../src/app");
  app.who.value = who;
  const draft = await import("../src/views/draft");
  const inTab =
    <Given extends unknown[], Told>(work: (...given: Given) => Told) =>
    (...given: Given): Told => {
      vi.stubGlobal("sessionStorage", tab);
      return work(...given);
    };
  const { openDraft, writeDraft } = draft;
  return { ...draft, openDraft: inTab(openDraft), writeDraft: inTab(writeDraft), again: () => page(who, tab) };
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
  const { writeDraft, again } = await page();
  writeDraft("one", "half a");
  writeDraft("one", "half a thou");
  writeDraft("two", "another");
  for (const { openDraft } of [await again(), await page()])
    expect([openDraft("one").value, openDraft("two").value, openDraft("three").value]).toEqual([
      "half a thou",
      "another",
      "",
    ]);
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
  expect((await page({ ...ann, name: "bob" })).openDraft("one").value).toBe("");
  expect((await page({ ...ann, tenant: "other" })).openDraft("one").value).toBe("");
  expect((await page(ann)).openDraft("one").value).toBe("of ann");
});

test("who goes leaves nothing of what they typed, and to others what is theirs", async () => {
  (await page({ ...ann, name: "bob" })).writeDraft("one", "of bob");
  const { forgetDrafts, writeDraft } = await page(ann);
  writeDraft("one", "of ann");
  writeDraft("two", "of ann too");
  forgetDrafts("default.ann");
  expect(keptNames()).toEqual([expect.stringMatching("^m3.draft/default.bob/one/")]);
});

test("a page that opens a thread takes up what was typed there last, and none that types there already", async () => {
  vi.useFakeTimers();
  const here = await page();
  const there = await page();
  const [draft, other] = [here.openDraft("one"), there.openDraft("one")];
  vi.setSystemTime(1);
  here.writeDraft("one", "typed here");
  expect(other.value).toBe("");
  vi.setSystemTime(2);
  there.writeDraft("one", "typed there");
  here.openDraft("one");
  expect([draft.value, other.value]).toEqual(["typed here", "typed there"]);
  const third = await page();
  expect(third.openDraft("one").value).toBe("typed there");
  third.openDraft("two");
  there.writeDraft("two", "in another");
  expect(third.openDraft("two").value).toBe("in another"); // gone back to
});

test.each(["", "more here"])("what two pages type is kept of both, until each is sent (%s)", async (more) => {
  vi.useFakeTimers();
  const here = await page();
  const there = await page();
  here.openDraft("one");
  there.openDraft("one");
  vi.setSystemTime(1);
  here.writeDraft("one", "typed here");
  there.writeDraft("one", "typed there");
  vi.setSystemTime(2);
  here.writeDraft("one", more);
  const { openDraft, writeDraft } = await page();
  expect(openDraft("one").value).toBe(more || "typed there");
  writeDraft("one", "");
  expect((await page()).openDraft("one").value).toBe(more ? "typed there" : "");
});

test("of what two pages took up each goes on for itself", async () => {
  (await page()).writeDraft("one", "half a");
  const here = await page();
  const there = await page();
  expect([here.openDraft("one").value, there.openDraft("one").value]).toEqual(["half a", "half a"]);
  there.writeDraft("one", "half a thought");
  here.writeDraft("one", "half a minute");
  there.writeDraft("one", ""); // sent
  expect(here.draftOf("one").value).toBe("half a minute");
  expect((await page()).openDraft("one").value).toBe("half a minute");
  here.writeDraft("one", "");
  expect(keptNames()).toEqual([]);
});

test("a page that is loaded again has what was typed in it, whatever others did with it meanwhile", async () => {
  vi.useFakeTimers();
  const here = await page();
  vi.setSystemTime(1);
  here.writeDraft("one", "a long thought");
  const there = await page();
  there.openDraft("one");
  vi.setSystemTime(2);
  there.writeDraft("one", "another");
  expect((await here.again()).openDraft("one").value).toBe("a long thought");
  expect((await there.again()).openDraft("one").value).toBe("another");
  there.writeDraft("one", "");
  expect((await there.again()).openDraft("one").value).toBe("");
  expect((await here.again()).openDraft("one").value).toBe("a long thought");
});

test("what was taken up of a page that was closed is kept by nobody once it is sent", async () => {
  (await page()).writeDraft("one", "half a");
  const here = await page();
  here.openDraft("one");
  here.writeDraft("one", "half a thought");
  const again = await here.again();
  expect(again.openDraft("one").value).toBe("half a thought");
  again.writeDraft("one", "");
  expect(keptNames()).toEqual([]);
});

test("of two threads whose names begin alike each has its own", async () => {
  (await page()).writeDraft("one-more", "of the other");
  expect((await page()).openDraft("one").value).toBe("");
});

test("a browser keeps the newest of many, and the beginning of one that is too long", async () => {
  vi.useFakeTimers();
  const { LONGEST, MOST, draftOf, writeDraft } = await page();
  for (let number = 0; number <= MOST; number++) {
    vi.setSystemTime(number);
    writeDraft(`t${number}`, `text ${number}`);
  }
  expect(keptNames()).toHaveLength(MOST);
  expect(keptNames().filter((name) => name.startsWith("m3.draft/open/t0/"))).toEqual([]);
  expect(draftOf("t0").value).toBe("text 0"); // as long as the page is there
  writeDraft("t1", "🦊".repeat(LONGEST));
  expect((await page()).openDraft("t1").value).toBe("🦊".repeat(LONGEST / 2));
});

test("a browser that keeps nothing has what is typed as long as the page is there", async () => {
  vi.spyOn(Storage.prototype, "setItem").mockImplementation(() => {
    throw new DOMException("full", "QuotaExceededError");
  });
  const { draftOf, writeDraft } = await page();
  writeDraft("one", "half a thou");
  expect(draftOf("one").value).toBe("half a thou");
});

test("what was typed while a browser kept nothing more takes the place of what it kept before", async () => {
  const { writeDraft } = await page();
  writeDraft("one", "half");
  vi.spyOn(Storage.prototype, "setItem").mockImplementationOnce(() => {
    throw new DOMException("full", "QuotaExceededError");
  });
  writeDraft("one", "half a");
  writeDraft("one", "half a thou");
  expect(keptNames()).toHaveLength(1);
  expect((await page()).openDraft("one").value).toBe("half a thou");
});

test.each(['"text"', "{}", '{"text":1,"at":1}', "["])("what was kept otherwise, as %s, is nothing", async (value) => {
  localStorage.setItem("m3.draft/open/one", value);
  expect((await page()).openDraft("one").value).toBe("");
});
