// @vitest-environment jsdom
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Conversation } from "../src/thread/conversation";
import { sayLeftovers } from "../src/thread/leftovers";
import { threadsWaiting } from "../src/thread/outbox";
import type { DeltaFrame, Frame, HistoryMessage, NewMessageFrame } from "../src/wire";
import { kept } from "./messages";

/** A socket whose room is the test. */
class FakeSocket {
  static readonly OPEN = 1;
  static opened: FakeSocket[] = [];
  readonly OPEN = 1;
  readyState = 1;
  sent: string[] = [];
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;

  constructor(readonly url: string) {
    FakeSocket.opened.push(this);
  }

  send(text: string): void {
    this.sent.push(text);
  }

  close(): void {
    this.readyState = 3;
  }

  hear(...frames: Frame[]): void {
    for (const frame of frames) this.onmessage?.({ data: JSON.stringify(frame) });
  }

  end(code = 1006): void {
    this.onclose?.({ code });
  }
}

/** The room's history, by number. */
let history: HistoryMessage[];
/** What waits for its answer, where the history is slow. */
let slow: Promise<void> | undefined;
let conversation: Conversation;
let restarts: number;

const socket = () => FakeSocket.opened.at(-1) as FakeSocket;
const connected = (head: number): Frame => ({ type: "connected", connections: 1, head });

const said = (seq: number): NewMessageFrame => ({
  type: "new_message",
  message_id: `m${seq}`,
  seq,
  source: "api",
  content: `${seq}`,
  timestamp: 0,
  in_reply_to: [],
});

const turn = (id: string, state: "started" | "ended"): Frame => ({
  type: "turn",
  state,
  turn_id: id,
  reply_id: `r-${id}`,
  in_reply_to: [],
  ...(state === "ended" && { outcome: "failed" as const }),
});

const delta = (index: number, content: string): DeltaFrame => ({
  type: "delta",
  turn_id: "1",
  reply_id: "r-1",
  index,
  content,
});

const PRESENCE: Frame = { type: "presence", connections: 1, clients: [] };

async function answer(address: string): Promise<Response> {
  await slow;
  const url = new URL(address, location.origin);
  const asked = /^\/api\/messages\/m(\d+)$/.exec(url.pathname);
  if (asked) return Response.json(kept(Number(asked[1])));
  const limit = Number(url.searchParams.get("limit"));
  const before = Number(url.searchParams.get("before") ?? Number.POSITIVE_INFINITY);
  return Response.json({ messages: history.filter(({ seq }) => seq < before).slice(-limit) });
}

/** Everything that is due by then, timers and promises. */
const pass = (milliseconds: number) => vi.advanceTimersByTimeAsync(milliseconds);

async function begin(): Promise<void> {
  await conversation.start();
  await pass(0);
}

beforeEach(() => {
  vi.useFakeTimers();
  localStorage.clear();
  FakeSocket.opened = [];
  history = [];
  slow = undefined;
  restarts = 0;
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("fetch", answer);
  conversation = new Conversation("t", { client: "ann", name: "ann" }, "open", () => {
    restarts++;
  });
});

afterEach(() => {
  conversation.stop();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

test("a socket begins behind the newest message that was read", async () => {
  history = [kept(1), kept(2)];
  await begin();
  expect(new URL(socket().url).searchParams.get("after")).toBe("2");
  expect(conversation.state.value).toBe("connecting");
  socket().hear(connected(2));
  expect(conversation.state.value).toBe("open");
});

test("what was missed is what has a number up to the thread's when the page came back", async () => {
  await begin();
  socket().hear(connected(0), said(1));
  await pass(500);
  socket().end();
  await pass(2_000);
  expect(new URL(socket().url).searchParams.get("after")).toBe("1");
  socket().hear(connected(3), said(2), said(3), said(4));
  expect(conversation.missed.value).toEqual({ after: 1, upTo: 3 });
});

test("a reply that grows stays while the socket is away, and goes on with the next one", async () => {
  const grown = () => conversation.timeline.growing.map(({ text, torn }) => ({ text, torn }));
  await begin();
  socket().hear(connected(0), turn("1", "started"), delta(0, "Once "));
  await pass(500);
  expect(conversation.turn).toBe("1");
  socket().end();
  expect(grown()).toEqual([{ text: "Once ", torn: false }]);
  expect(conversation.turn).toBeUndefined();
  await pass(2_000);
  const retold = [turn("1", "started"), delta(0, "Once "), delta(1, "upon")];
  socket().hear(connected(0), ...retold, PRESENCE, delta(2, " a time"));
  await pass(500);
  expect(grown()).toEqual([{ text: "Once upon a time", torn: false }]);
  socket().end();
  await pass(2_000);
  socket().hear(connected(0), PRESENCE);
  expect(grown()).toEqual([{ text: "Once upon a time", torn: false }]);
  await pass(500);
  socket().hear(turn("1", "started"), { ...delta(0, "Once upon a time"), pieces: 3 }, delta(3, " there"));
  await pass(1_000);
  expect(grown()).toEqual([{ text: "Once upon a time there", torn: false }]);
  socket().end();
  await pass(2_000);
  socket().hear(connected(0), PRESENCE);
  await pass(1_000);
  expect(grown()).toEqual([]);
});

test("what comes in is shown although the browser draws nothing, as for a page that nobody sees", async () => {
  vi.stubGlobal("requestAnimationFrame", () => 0);
  await begin();
  socket().hear(connected(0), said(1));
  await pass(1_000);
  socket().hear(said(2));
  await pass(1_000);
  expect(conversation.timeline.messages.map(({ seq }) => seq)).toEqual([1, 2]);
});

test("a room that closes each socket before it has a place is asked less and less often", async () => {
  await begin();
  const waits: number[] = [];
  for (let attempt = 0; attempt < 5; attempt++) {
    const before = FakeSocket.opened.length;
    socket().end(4001);
    let waited = 0;
    for (; FakeSocket.opened.length === before; waited += 50) await pass(50);
    waits.push(waited);
  }
  expect(waits[4]).toBeGreaterThan((waits[0] ?? 0) * 4);
});

test("a socket that the room ends for good does not come back", async () => {
  await begin();
  socket().hear(connected(0));
  socket().end(4500);
  await pass(60_000);
  expect(FakeSocket.opened).toHaveLength(1);
  expect(conversation.problem.value).toBe("no longer allowed");
});

test("stopping a turn does not stop the next, which begins at once", async () => {
  await begin();
  socket().hear(connected(0), turn("a", "started"));
  await pass(500);
  conversation.cancel();
  expect(conversation.stopping.value).toBe("a");
  socket().hear(turn("a", "ended"), turn("b", "started"));
  await pass(500);
  expect(conversation.turn).toBe("b");
  expect(conversation.stopping.value).toBeUndefined();
});

test("a turn that could not be stopped can be tried again, and why is told", async () => {
  await begin();
  socket().hear(connected(0), turn("a", "started"));
  await pass(500);
  conversation.cancel();
  socket().hear({ type: "error", code: "broker_unavailable", message: "No." });
  expect(conversation.stopping.value).toBeUndefined();
  expect(conversation.notice.value).toMatchObject({ code: "broker_unavailable" });
});

test("a thread that was taken back is begun anew", async () => {
  await begin();
  socket().hear({ type: "reset", head: 0 });
  expect(restarts).toBe(1);
});

test("a thread that cannot be read just now is away, and what is said in it waits", async () => {
  vi.stubGlobal("fetch", () => Promise.reject(new TypeError("Failed to fetch")));
  await begin();
  expect(conversation.state.value).toBe("waiting");
  conversation.say("hello");
  expect(conversation.outbox.items.value).toHaveLength(1);
  vi.stubGlobal("fetch", answer);
  await pass(5_000);
  socket().hear(connected(0));
  expect(socket().sent).toHaveLength(1);
  expect(conversation.state.value).toBe("open");
});

test("what was said in threads that are not open any more is said for them", async () => {
  const begun = (thread: string) => new Conversation(thread, { client: "ann", name: "ann" }, "open", () => undefined);
  for (const thread of ["one", "two"]) {
    const left = begun(thread);
    left.say(`in ${thread}`);
    left.stop();
  }
  const done = sayLeftovers("open", "t", begun, new AbortController().signal);
  for (const thread of ["one", "two"]) {
    await pass(100);
    expect(socket().url).toContain(`/ws/chat/${thread}?`);
    socket().hear(connected(0));
    const { client_id } = JSON.parse(socket().sent[0] ?? "{}") as { client_id: string };
    socket().hear({ type: "recorded", message_id: "m", seq: 1, client_id });
    await pass(100);
  }
  await done;
  expect(FakeSocket.opened).toHaveLength(2);
  expect(threadsWaiting("open")).toEqual([]);
});

test("who asks for a message far back while older ones are being read waits for them, and gets it", async () => {
  history = Array.from({ length: 900 }, (_, place) => kept(place + 1));
  await begin();
  let go = () => {};
  slow = new Promise((resolve) => {
    go = resolve;
  });
  const reading = conversation.loadOlder();
  const reached = conversation.reach("m1");
  go();
  await pass(5_000);
  await reading;
  expect(await reached).toMatchObject({ seq: 1 });
  expect(conversation.timeline.reachesStart).toBe(true);
});

test("a change of the oldest message does not keep older ones from being added", async () => {
  history = Array.from({ length: 100 }, (_, place) => kept(place + 1));
  await begin();
  socket().hear(connected(100));
  const reading = conversation.loadOlder();
  socket().hear({ type: "fate", message_id: "m41", number: 101, fate: "ignored" });
  await pass(1_000);
  await reading;
  expect(conversation.timeline.messages[0]?.seq).toBe(1);
});
