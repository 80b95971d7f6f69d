import type { HistoryMessage } from "../src/wire";

export const AT = "2026-01-31T12:00:00Z";

/** A person's message as the history has it. */
export function kept(seq: number, more: Partial<HistoryMessage> = {}): HistoryMessage {
  return {
    message_id: `m${seq}`,
    seq,
    rev: seq,
    source: "user",
    content: `${seq}`,
    timestamp: AT,
    author: null,
    in_reply_to: [],
    cancelled: false,
    fate: "pending",
    reply_id: null,
    reply_seq: null,
    reason: null,
    ...more,
  };
}
