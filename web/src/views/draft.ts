/** What is typed and not said yet, in each thread. */
import { type Signal, signal } from "@preact/signals";

const drafts = new Map<string, Signal<string>>();

export function draftOf(threadId: string): Signal<string> {
  const known = drafts.get(threadId) ?? signal("");
  drafts.set(threadId, known);
  return known;
}
