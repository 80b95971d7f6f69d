// @vitest-environment jsdom
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { MOST, Outbox, threadsWaiting } from "../src/thread/outbox";
import type { ErrorFrame, NewMessageFrame } from "../src/wire";

interface SaidFrame {
  message: string;
  client_id: string;
}

let outbox: Outbox;
let said: SaidFrame[];

const say = (text: string) => void said.push(JSON.parse(text) as SaidFrame);
const texts = () => said.map((one) => one.message);
const waiting = () => outbox.items.value.map((one) => one.content);
const another = () => new Outbox("open/default", (frame) => frame.author === "ann");

function keyOf(content: string): string {
  const found = outbox.items.value.find((one) => one.content === content);
  if (!found) throw new Error(`${content} does not wait`);
  return found.key;
}

const recorded = (content: string) =>
  outbox.recorded({ type: "recorded", message_id: "m", seq: 1, client_id: keyOf(content) });

const refused = (content: string, code: string, more: Partial<ErrorFrame> = {}) =>
  outbox.refused({ type: "error", code, message: `No: ${code}.`, client_id: keyOf(content), ...more });

const heard = (content: string, more: Partial<NewMessageFrame> = {}): NewMessageFrame => ({
  type: "new_message",
  message_id: "m",
  seq: 1,
  source: "user",
  content,
  timestamp: 0,
  author: "ann",
  in_reply_to: [],
  ...more,
});

beforeEach(() => {
  localStorage.clear();
  vi.useFakeTimers();
  said = [];
  outbox = another();
});

afterEach(() => {
  vi.useRealTimers();
});

test("what a page that was closed left goes out with the rest once there is a socket again", () => {
  outbox.add("first");
  const closed = another();
  vi.advanceTimersByTime(1);
  closed.add("second");
  closed.stop();
  vi.advanceTimersByTime(1);
  outbox.add("third");
  outbox.opened(say);
  expect(texts()).toEqual(["first", "second", "third"]);
});

test("what is said without a socket goes out in its order once there is one", () => {
  outbox.add("first");
  outbox.add("second");
  expect(said).toEqual([]);
  outbox.opened(say);
  outbox.add("third");
  expect(texts()).toEqual(["first", "second", "third"]);
});

test("what the room has recorded waits no longer", () => {
  outbox.opened(say);
  outbox.add("first");
  outbox.add("second");
  recorded("first");
  expect(waiting()).toEqual(["second"]);
  expect(outbox.isEmpty).toBe(false);
  recorded("second");
  expect(outbox.isEmpty).toBe(true);
});

test("what was not answered is said again on the next socket, by the same key and in the same order", () => {
  outbox.opened(say);
  outbox.add("first");
  outbox.add("second");
  outbox.closed();
  outbox.opened(say);
  expect(texts()).toEqual(["first", "second", "first", "second"]);
  expect(said[0]?.client_id).toBe(said[2]?.client_id);
  expect(said[0]?.client_id).not.toBe(said[1]?.client_id);
});

test("what waits is still there after the page was loaded again, with its keys", () => {
  outbox.add("first");
  outbox.add("second");
  const before = outbox.items.value;
  outbox = another();
  expect(outbox.items.value).toEqual(before);
});

test("two pages of a browser keep what waits in both", () => {
  const other = another();
  outbox.add("here");
  other.add("there");
  expect(another().items.value.map((one) => one.content)).toEqual(["here", "there"]);
  outbox.opened(say);
  recorded("here");
  expect(another().items.value.map((one) => one.content)).toEqual(["there"]);
});

test("what another page of the browser has said or thrown away waits here no longer", () => {
  outbox.add("here");
  const other = another();
  const name = `m3.outbox/open/default/${keyOf("here")}`;
  outbox.remove(keyOf("here"));
  dispatchEvent(new StorageEvent("storage", { key: name }));
  expect(other.items.value).toEqual([]);
});

test("the threads in which something waits are known, of each who speaks", () => {
  outbox.add("first");
  new Outbox("open/show", () => true).add("second");
  new Outbox("default.ann/other", () => true).add("third");
  expect(threadsWaiting("open").sort()).toEqual(["default", "show"]);
  outbox.opened(say);
  refused("first", "forbidden");
  expect(threadsWaiting("open")).toEqual(["show"]);
});

test("what the browser has no room for waits in the page, which is told", () => {
  vi.spyOn(Storage.prototype, "setItem").mockImplementation(() => {
    throw new DOMException("full", "QuotaExceededError");
  });
  expect(outbox.add("first")).toBe(false);
  vi.restoreAllMocks();
  expect(outbox.add("second")).toBe(true);
  expect(waiting()).toEqual(["first", "second"]);
});

test("nothing is kept once all is recorded", () => {
  outbox.opened(say);
  outbox.add("first");
  expect(localStorage).toHaveLength(1);
  recorded("first");
  expect(localStorage).toHaveLength(0);
});

test("each thread, and each who speaks in it, has an outbox of its own", () => {
  outbox.add("first");
  expect(new Outbox("open/show", () => true).items.value).toEqual([]);
  expect(new Outbox("default.ann/default", () => true).items.value).toEqual([]);
});

test("what somebody has spoilt in the browser's memory counts as nothing", () => {
  localStorage.setItem("m3.outbox/open/default/1", '{"key": 1}');
  expect(another().items.value).toEqual([]);
  localStorage.setItem("m3.outbox/open/default/1", "{");
  expect(another().items.value).toEqual([]);
});

test.each(["invalid_message", "message_too_long", "forbidden"])(
  "a message that is refused as %s stays with the reason, holds up nobody and is not said again",
  (code) => {
    outbox.opened(say);
    outbox.add("bad");
    outbox.add("good");
    refused("bad", code);
    expect(outbox.items.value[0]?.refused).toEqual({ code, message: `No: ${code}.` });
    recorded("good");
    expect(outbox.isEmpty).toBe(true);
    outbox.closed();
    outbox.opened(say);
    expect(texts()).toEqual(["bad", "good"]);
    outbox = another();
    expect(outbox.items.value[0]?.refused).toEqual({ code, message: `No: ${code}.` });
  },
);

test("a message that was not taken for now is said again after the time that the room names, before those behind it", () => {
  outbox.opened(say);
  outbox.add("first");
  outbox.add("second");
  refused("first", "rate_limited", { retry_after: 7 });
  refused("second", "not_handed_in");
  outbox.closed();
  outbox.opened(say);
  said = [];
  refused("first", "rate_limited", { retry_after: 7 });
  refused("second", "not_handed_in", { retry_after: 7 });
  outbox.add("third");
  expect(said).toEqual([]);
  vi.advanceTimersByTime(6_999);
  expect(said).toEqual([]);
  vi.advanceTimersByTime(1);
  expect(texts()).toEqual(["first", "second", "third"]);
});

test("those behind a message that was not taken wait as long as it, though the room names no time for them", () => {
  outbox.opened(say);
  outbox.add("first");
  outbox.add("second");
  said = [];
  refused("first", "rate_limited", { retry_after: 7 });
  refused("second", "not_handed_in");
  vi.advanceTimersByTime(6_999);
  expect(said).toEqual([]);
  vi.advanceTimersByTime(1);
  expect(texts()).toEqual(["first", "second"]);
});

test("a refusal of what does not wait here changes nothing", () => {
  outbox.opened(say);
  outbox.add("first");
  outbox.refused({ type: "error", code: "invalid_message", message: "No.", client_id: "another" });
  outbox.refused({ type: "error", code: "invalid_message", message: "No." });
  expect(waiting()).toEqual(["first"]);
  expect(outbox.items.value[0]?.refused).toBeUndefined();
});

test("what the thread has already is not shown a second time while the room's word for it is still to come", () => {
  outbox.opened(say);
  outbox.add("twice");
  outbox.add("twice");
  outbox.seen(heard("twice"));
  expect(outbox.items.value.map((one) => one.shown ?? false)).toEqual([true, false]);
  outbox.seen(heard("twice"));
  expect(outbox.items.value.map((one) => one.shown)).toEqual([true, true]);
});

test.each([
  ["somebody else says", heard("hello", { author: "bob" })],
  ["a program says", heard("hello", { source: "api" })],
  ["is said otherwise", heard("hello!")],
])("what %s is not taken for what waits here", (_, frame) => {
  outbox.opened(say);
  outbox.add("hello");
  outbox.seen(frame);
  expect(outbox.items.value[0]?.shown).toBeUndefined();
});

test("it says when it is full", () => {
  for (let number = 1; number < MOST; number++) outbox.add(`${number}`);
  expect(outbox.isFull).toBe(false);
  outbox.add("last");
  expect(outbox.isFull).toBe(true);
});

test("what somebody discards is gone", () => {
  outbox.add("first");
  outbox.remove(keyOf("first"));
  outbox.opened(say);
  expect(said).toEqual([]);
  expect(another().items.value).toEqual([]);
});
