import { beforeEach, expect, test } from "vitest";
import { SLACK, Timeline } from "../src/thread/timeline";
import type { DeltaFrame, Frame, NewMessageFrame, TurnFrame } from "../src/wire";
import { AT, kept } from "./messages";

/** Messages that are to be held. */
const HELD = 100;

let timeline: Timeline;

beforeEach(() => {
  timeline = new Timeline();
});

function said(seq: number, more: Partial<NewMessageFrame> = {}): NewMessageFrame {
  return {
    type: "new_message",
    message_id: `m${seq}`,
    seq,
    source: "user",
    content: `${seq}`,
    timestamp: Date.parse(AT) / 1000,
    in_reply_to: [],
    ...more,
  };
}

const started: TurnFrame = { type: "turn", state: "started", turn_id: "t", reply_id: "r", in_reply_to: ["m1"] };

function delta(index: number, content: string): DeltaFrame {
  return { type: "delta", turn_id: "t", reply_id: "r", index, content };
}

function ended(outcome: TurnFrame["outcome"]): TurnFrame {
  return { type: "turn", state: "ended", turn_id: "t", reply_id: "r", ...(outcome && { outcome }) };
}

const numbers = () => timeline.messages.map((message) => message.seq);

test("messages are in the order of their numbers, whichever way they come, and each is there once", () => {
  timeline.take([said(5), said(7)]);
  timeline.take([said(6), said(5), said(8)]);
  timeline.prepend([kept(3), kept(4), kept(5)], 3);
  expect(numbers()).toEqual([3, 4, 5, 6, 7, 8]);
  expect(timeline.last).toBe(8);
});

test("a message is the same from the history and from a socket", () => {
  timeline.begin([kept(1)], 100);
  const [ofHistory] = timeline.messages;
  timeline = new Timeline();
  timeline.take([said(1)]);
  expect(timeline.messages).toEqual([ofHistory]);
});

test("the start of a thread is reached by a page that is not full", () => {
  timeline.begin([kept(3), kept(4)], 2);
  expect(timeline.reachesStart).toBe(false);
  timeline.prepend([kept(2)], 2);
  expect(timeline.reachesStart).toBe(true);
});

test("a socket goes on behind the last change, though it be one of an old message", () => {
  timeline.begin([kept(1, { rev: 9 }), kept(2)], 100);
  expect(timeline.last).toBe(9);
  timeline.take([{ type: "fate", message_id: "m2", number: 10, fate: "ignored" }]);
  expect(timeline.last).toBe(10);
});

test("a fate makes another message of the one whose it is, and leaves the others", () => {
  timeline.take([said(1), said(2)]);
  const [first, second] = timeline.messages;
  timeline.take([{ type: "fate", message_id: "m1", fate: "failed", reason: "model_away" }]);
  expect(timeline.messages[0]).toEqual({ ...first, fate: "failed", reason: "model_away" });
  expect(timeline.messages[1]).toBe(second);
  expect(timeline.find("m1")).toBe(timeline.messages[0]);
});

test("a fate that comes with its message finds it", () => {
  timeline.take([said(1), { type: "fate", message_id: "m1", fate: "answered", reply_id: "r" }]);
  expect(timeline.find("m1")).toMatchObject({ fate: "answered", replyId: "r" });
});

test("a reply grows as it is said, until what was recorded takes its place", () => {
  timeline.take([said(1), started, delta(0, "Well, "), delta(1, "hello!")]);
  expect(timeline.growing).toMatchObject([{ text: "Well, hello!", torn: false, ended: false, inReplyTo: ["m1"] }]);
  timeline.take([ended("answered")]);
  expect(timeline.growing).toMatchObject([{ text: "Well, hello!", ended: true }]);
  timeline.take([said(2, { message_id: "r", source: "assistant", in_reply_to: ["m1"] })]);
  expect(timeline.growing).toEqual([]);
  expect(numbers()).toEqual([1, 2]);
  timeline.take([delta(2, "late")]);
  expect(timeline.growing).toEqual([]);
});

test("a reply of which a piece was missed is torn", () => {
  timeline.take([started, delta(0, "one "), delta(2, "three")]);
  expect(timeline.growing).toMatchObject([{ text: "one three", torn: true }]);
});

test("a reply that is come upon in its middle is torn", () => {
  timeline.take([delta(4, "the rest")]);
  expect(timeline.growing).toMatchObject([{ text: "the rest", torn: true }]);
});

test("a turn that starts again voids what was said of its reply", () => {
  timeline.take([started, delta(0, "wrong"), started, delta(0, "right")]);
  expect(timeline.growing).toMatchObject([{ text: "right", torn: false }]);
});

test.each(["failed", "interrupted", "cancelled"] as const)(
  "a turn that is %s before its first word leaves nothing",
  (outcome) => {
    timeline.take([started, ended(outcome)]);
    expect(timeline.growing).toEqual([]);
  },
);

test("what a cancelled turn had said stays until it is recorded", () => {
  timeline.take([started, delta(0, "half"), ended("cancelled")]);
  expect(timeline.growing).toMatchObject([{ text: "half", ended: true }]);
});

test.each<Frame>([
  { type: "fate", message_id: "m1", fate: "expired" },
  { type: "fate", message_id: "m1", fate: "answered", reply_id: "another" },
  said(2, { message_id: "another", source: "assistant", in_reply_to: ["m0", "m1"] }),
])("a turn whose message got its fate otherwise is over: %o", (frame) => {
  timeline.take([said(1), started, delta(0, "half")]);
  timeline.take([
    { type: "fate", message_id: "m0", fate: "expired" },
    { type: "fate", message_id: "m1", fate: "pending" },
  ]);
  expect(timeline.growing).toHaveLength(1);
  timeline.take([frame]);
  expect(timeline.growing).toEqual([]);
});

test("what had grown when the socket went stays until the next one has told what grows", () => {
  timeline.take([started, delta(0, "half")]);
  timeline.interrupt();
  expect(timeline.growing).toMatchObject([{ text: "half" }]);
  timeline.take([started, delta(0, "half"), delta(1, " and half")]);
  expect(timeline.resume()).toBe(false);
  expect(timeline.growing).toMatchObject([{ text: "half and half", torn: false }]);
});

test("what the next socket does not tell of is over", () => {
  timeline.take([started, delta(0, "half")]);
  timeline.interrupt();
  expect(timeline.resume()).toBe(true);
  expect(timeline.growing).toEqual([]);
});

test("a turn that is told of after its reply was recorded is over", () => {
  timeline.take([said(2, { message_id: "r", source: "assistant", in_reply_to: ["m1"] }), started]);
  expect(timeline.growing).toEqual([]);
});

test("the oldest messages of a thread that grows without end are let go", () => {
  timeline.begin([kept(1)], 100);
  timeline.take(Array.from({ length: HELD + SLACK }, (_, index) => said(index + 2)));
  expect(timeline.trim(HELD)).toBe(true);
  expect(timeline.messages.length).toBe(HELD);
  expect(timeline.messages.at(-1)?.seq).toBe(HELD + SLACK + 1);
  expect(timeline.find("m1")).toBeUndefined();
  expect(timeline.reachesStart).toBe(false);
  expect(timeline.trim(HELD)).toBe(false);
});

test("a fate that comes while an older page of the history is on its way is not lost", () => {
  timeline.begin([kept(5)], 1);
  timeline.take([{ type: "fate", message_id: "m4", number: 6, fate: "ignored" }]);
  timeline.prepend([kept(4)], 1);
  expect(timeline.find("m4")).toMatchObject({ fate: "ignored" });
});
