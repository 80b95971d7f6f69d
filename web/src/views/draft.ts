/** What is typed and not said yet, in each thread, by whoever sits here. It is kept in this browser, where all of its pages
 * type the same. */
import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { place } from "../app";
import { whole } from "../cutting";
import { forget, isNumber, isRecord, isText, keep, kept, namesKept, whenKeptElsewhere } from "../storage";

interface Draft {
  readonly text: string;
  /** When it was typed, in milliseconds since 1970. */
  readonly at: number;
}

/** Most that a browser keeps, past which those go that were typed longest ago, and characters of each. */
export const MOST = 20;
export const LONGEST = 65_536;

const KEPT = "draft/";
const isDraft = (value: unknown): value is Draft => isRecord(value) && isText(value.text) && isNumber(value.at);
const textOf = (name: string): string => kept(name, isDraft)?.text ?? "";
const nameOf = (threadId: string): string => `${KEPT}${place.value}/${threadId}`;

const drafts = new Map<string, Signal<string>>();
whenKeptElsewhere(KEPT, (name) => {
  const known = drafts.get(name);
  if (known) known.value = textOf(name);
});

export const draftOf = (threadId: string): ReadonlySignal<string> => draftUnder(nameOf(threadId));

function draftUnder(name: string): Signal<string> {
  const known = drafts.get(name) ?? signal(textOf(name));
  drafts.set(name, known);
  return known;
}

export function writeDraft(threadId: string, text: string): void {
  const name = nameOf(threadId);
  draftUnder(name).value = text;
  if (text === "") {
    forget(name);
    return;
  }
  const isNew = kept(name, isDraft) === undefined;
  keep(name, { text: text.slice(0, whole(text, LONGEST)), at: Date.now() } satisfies Draft);
  const others = isNew ? namesKept(KEPT).filter((one) => one !== name) : [];
  if (others.length >= MOST) forget(oldest(others));
}

const oldest = (names: readonly string[]): string => {
  const at = (name: string) => kept(name, isDraft)?.at ?? 0;
  return names.reduce((one, other) => (at(other) < at(one) ? other : one));
};

/** Forget all of whoever sits at that place. */
export function forgetDrafts(of: string): void {
  for (const name of namesKept(`${KEPT}${of}/`)) forget(name);
}
