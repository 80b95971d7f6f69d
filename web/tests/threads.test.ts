// @vitest-environment jsdom
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Me, ThreadInList } from "../src/wire";

const ANYONE: Me = { kind: "anyone", tenant: "default", name: null };

/** The threads that the room has, by name, with how much was said in each. */
let heads: Record<string, number>;
/** Requests for the list, or a part of it. */
let listings: number;
/** What the room waits for before it answers. */
let slow: Promise<void> | undefined;

async function answer(address: string): Promise<Response> {
  await slow;
  const url = new URL(address, location.origin);
  const history = /^\/api\/threads\/(.+)\/history$/.exec(url.pathname);
  if (!history) {
    listings += 1;
    const after = url.searchParams.get("after") ?? "";
    const names = Object.keys(heads).sort();
    return Response.json({
      threads: names
        .filter((name) => name > after)
        .slice(0, 500)
        .map(listedAs),
    });
  }
  const since = Number(url.searchParams.get("after"));
  const said = (heads[history[1] as string] ?? 0) - since;
  return Response.json({ messages: Array.from({ length: Math.min(said, 100) }, () => ({ author: "bob" })) });
}

const listedAs = (name: string): ThreadInList => ({
  thread_id: name,
  visibility: "open",
  role: null,
  head: heads[name] ?? 0,
  last_at: null,
});

/** The module as a page that is loaded anew has it. */
async function page() {
  vi.resetModules();
  const app = await import("../src/app");
  const threads = await import("../src/threads");
  app.who.value = ANYONE;
  threads.watchThreads();
  await vi.advanceTimersByTimeAsync(10);
  const unread = () => Object.fromEntries(threads.listed.value.map((one) => [one.threadId, one.unread]));
  return { ...threads, app, unread };
}

beforeEach(() => {
  vi.useFakeTimers();
  localStorage.clear();
  slow = undefined;
  listings = 0;
  vi.stubGlobal("fetch", answer);
});

afterEach(() => {
  vi.useRealTimers();
});

test("nothing is unread to whoever comes for the first time, and later what was said since and in new threads", async () => {
  heads = { news: 5 };
  const first = await page();
  expect(first.unread()).toEqual({ news: 0 });
  heads = { news: 8, show: 2 };
  await first.lookAtThreads();
  expect(first.unread()).toEqual({ news: 3, show: 2 });
  expect((await page()).unread()).toEqual({ news: 3, show: 2 });
});

test("what is seen of the open thread before the first look is over makes no other thread unread", async () => {
  heads = { news: 5, show: 7 };
  slow = new Promise((resolve) => setTimeout(resolve, 3_000));
  const { sawUpTo, unread } = await page();
  sawUpTo("news", 5);
  await vi.advanceTimersByTimeAsync(5_000);
  expect(unread()).toEqual({ news: 0, show: 0 });
});

test("each of many threads is counted in time, a few at a look", async () => {
  heads = Object.fromEntries(Array.from({ length: 25 }, (_, number) => [`t${number}`, 0]));
  const { lookAtThreads, unread } = await page();
  for (const name of Object.keys(heads)) heads[name] = 1;
  await lookAtThreads();
  expect(Object.values(unread()).filter(Boolean)).toHaveLength(10);
  await lookAtThreads();
  await lookAtThreads();
  expect(Object.values(unread()).filter(Boolean)).toHaveLength(25);
});

test("what was seen here is seen in the browser's other pages too", async () => {
  heads = { news: 1 };
  const one = await page();
  const other = await page();
  heads = { news: 4 };
  one.sawUpTo("news", 4);
  await vi.advanceTimersByTimeAsync(2_000);
  await other.lookAtThreads();
  expect(other.unread()).toEqual({ news: 0 });
});

test("a thread that was taken back is unread again from its new end on", async () => {
  heads = { news: 10 };
  const { lookAtThreads, unread } = await page();
  heads = { news: 4 };
  await lookAtThreads();
  heads = { news: 6 };
  await lookAtThreads();
  expect(unread()).toEqual({ news: 2 });
});

test("so is one that was taken back while no page was there", async () => {
  heads = { news: 9 };
  await page();
  heads = { news: 2 };
  const { lookAtThreads, unread } = await page();
  heads = { news: 4 };
  await lookAtThreads();
  expect(unread()).toEqual({ news: 2 });
});

test("what is seen while the room answers stays seen", async () => {
  heads = { news: 6 };
  const { lookAtThreads, sawUpTo, unread } = await page();
  const looking = lookAtThreads();
  sawUpTo("news", 9);
  await looking;
  heads = { news: 9 };
  await lookAtThreads();
  expect(unread()).toEqual({ news: 0 });
});

test("more threads than fit an answer are all listed", async () => {
  heads = Object.fromEntries(Array.from({ length: 1_100 }, (_, number) => [`t${number}`, 0]));
  const { listed } = await page();
  expect(listed.value).toHaveLength(1_100);
});

test("a list that ends with a whole answer is asked for once more, and not for ever", async () => {
  heads = Object.fromEntries(Array.from({ length: 500 }, (_, number) => [`t${number}`, 0]));
  const { listed } = await page();
  expect(listed.value).toHaveLength(500);
  expect(listings).toBe(2);
});

test("a list that takes several requests is looked at less often, so that a page makes no more of them", async () => {
  for (const threads of [20, 500, 1_100]) {
    heads = Object.fromEntries(Array.from({ length: threads }, (_, number) => [`t${number}`, 0]));
    const { unread } = await page();
    for (const name of Object.keys(heads).slice(0, 20)) heads[name] = 1;
    listings = 0;
    await vi.advanceTimersByTimeAsync(60_000);
    expect(listings).toBe(6);
    expect(Object.values(unread()).filter(Boolean)).toHaveLength(20);
    vi.clearAllTimers();
    localStorage.clear();
  }
});
