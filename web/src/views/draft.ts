/** What is typed and not said yet, in each thread, by whoever sits here. It is kept in this browser for the page that opens
 * the thread next, which finds what was typed last. Pages that are in a thread side by side type each for itself, and keep
 * it apart; what one took up of another is both's until either types on. */
import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { place } from "../app";
import { whole } from "../cutting";
import { forget, isNumber, isRecord, isText, keep, kept, namesKept } from "../storage";
import { newKey } from "../thread/outbox";

interface Kept {
  readonly text: string;
  /** When it was typed, in milliseconds since 1970. */
  readonly at: number;
}

interface Draft {
  readonly text: Signal<string>;
  /** Under which it is kept, and what this page kept or found there last: anything else is another page's. */
  name: string;
  kept: string;
}

/** Most that a browser keeps, past which those go that were typed longest ago, and characters of each. */
export const MOST = 20;
export const LONGEST = 65_536;

const KEPT = "draft/";
const isKept = (value: unknown): value is Kept => isRecord(value) && isText(value.text) && isNumber(value.at);
const nameOf = (threadId: string): string => `${KEPT}${place.value}/${threadId}`;

const drafts = new Map<string, Draft>();

function draftIn(threadId: string): Draft {
  const name = nameOf(threadId);
  const known = drafts.get(name) ?? { text: signal(""), name, kept: "" };
  drafts.set(name, known);
  return known;
}

export const draftOf = (threadId: string): ReadonlySignal<string> => draftIn(threadId).text;

/** That of a thread that is opened: where nothing is typed there, what is kept of it is taken up. */
export function openDraft(threadId: string): ReadonlySignal<string> {
  const draft = draftIn(threadId);
  if (draft.text.value === "") {
    const name = nameOf(threadId);
    const found = namesKept(name).filter((one) => one === name || one.startsWith(`${name}/`));
    draft.name = found.length ? newest(found) : name;
    draft.kept = draft.text.value = kept(draft.name, isKept)?.text ?? "";
  }
  return draft.text;
}

export function writeDraft(threadId: string, text: string): void {
  const draft = draftIn(threadId);
  draft.text.value = text;
  const before = kept(draft.name, isKept)?.text;
  if (before !== undefined && before !== draft.kept) draft.name = `${nameOf(threadId)}/${newKey()}`;
  if (text === "") {
    draft.kept = "";
    forget(draft.name);
    return;
  }
  const isNew = kept(draft.name, isKept) === undefined;
  const beginning = text.slice(0, whole(text, LONGEST));
  if (keep(draft.name, { text: beginning, at: Date.now() } satisfies Kept)) draft.kept = beginning;
  const others = isNew ? namesKept(KEPT).filter((one) => one !== draft.name) : [];
  if (others.length >= MOST) forget(oldest(others));
}

const at = (name: string): number => kept(name, isKept)?.at ?? 0;
const oldest = (names: readonly string[]): string => names.reduce((one, other) => (at(other) < at(one) ? other : one));
const newest = (names: readonly string[]): string => names.reduce((one, other) => (at(other) > at(one) ? other : one));

/** Forget all of whoever sits at that place. */
export function forgetDrafts(of: string): void {
  for (const name of namesKept(`${KEPT}${of}/`)) forget(name);
}
