/** What is typed and not said yet, in each thread, by whoever sits here. Each page keeps what is typed in it for itself, also
 * when it is loaded again, and this browser a copy for whichever page opens the thread next, as where this one was closed. */
import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { place } from "../app";
import { whole } from "../cutting";
import { forget, here, isNumber, isRecord, isText, keep, kept, namesKept } from "../storage";
import { newKey } from "../thread/outbox";

interface Copy {
  readonly text: string;
  /** When it was typed, in milliseconds since 1970. */
  readonly at: number;
}

interface Typed {
  readonly text: string;
  /** Under which its copy is kept. */
  readonly name: string;
  /** The copy that it was taken up from, as it was then: sent from here it is to be taken up by nobody else. */
  readonly from?: { readonly name: string; readonly at: number };
}

interface Draft {
  readonly text: Signal<string>;
  readonly name: string;
  readonly from?: Typed["from"];
}

/** Most copies that a browser keeps, past which those go that were typed longest ago, and characters of each. */
export const MOST = 20;
export const LONGEST = 65_536;

const KEPT = "draft/";
const isCopy = (value: unknown): value is Copy => isRecord(value) && isText(value.text) && isNumber(value.at);
const isTyped = (value: unknown): value is Typed =>
  isRecord(value) &&
  isText(value.text) &&
  isText(value.name) &&
  (value.from === undefined || (isRecord(value.from) && isText(value.from.name) && isNumber(value.from.at)));
const nameOf = (threadId: string): string => `${KEPT}${place.value}/${threadId}`;

const drafts = new Map<string, Draft>();

function draftIn(threadId: string): Draft {
  const place = nameOf(threadId);
  const known = drafts.get(place) ?? { text: signal(""), name: `${place}/${newKey()}` };
  drafts.set(place, known);
  return known;
}

export const draftOf = (threadId: string): ReadonlySignal<string> => draftIn(threadId).text;

/** That of a thread that is opened: where nothing is typed there, what is kept of it. */
export function openDraft(threadId: string): ReadonlySignal<string> {
  const draft = draftIn(threadId);
  const found = draft.text.value === "" ? (here.kept(nameOf(threadId), isTyped) ?? takenUp(threadId)) : undefined;
  if (!found) return draft.text;
  const { text, ...others } = found;
  draft.text.value = text;
  drafts.set(nameOf(threadId), { ...draft, ...others });
  return draft.text;
}

function takenUp(threadId: string): Omit<Typed, "name"> | undefined {
  const place = nameOf(threadId);
  const names = namesKept(place).filter((one) => one === place || one.startsWith(`${place}/`));
  const name = names.reduce<string | undefined>((one, other) => (one && at(one) >= at(other) ? one : other), undefined);
  const copy = name && kept(name, isCopy);
  return copy ? { text: copy.text, from: { name, at: copy.at } } : undefined;
}

export function writeDraft(threadId: string, text: string): void {
  const place = nameOf(threadId);
  const { from, ...draft } = draftIn(threadId);
  draft.text.value = text;
  if (text === "") {
    drafts.set(place, draft);
    here.forget(place);
    forget(draft.name);
    if (from && at(from.name) === from.at) forget(from.name);
    return;
  }
  const beginning = text.slice(0, whole(text, LONGEST));
  here.keep(place, { text: beginning, name: draft.name, ...(from && { from }) } satisfies Typed);
  const isNew = kept(draft.name, isCopy) === undefined;
  keep(draft.name, { text: beginning, at: Date.now() } satisfies Copy);
  const others = isNew ? namesKept(KEPT).filter((one) => one !== draft.name) : [];
  if (others.length >= MOST) forget(others.reduce((one, other) => (at(other) < at(one) ? other : one)));
}

const at = (name: string): number => kept(name, isCopy)?.at ?? 0;

/** Forget all of whoever sits at that place. */
export function forgetDrafts(of: string): void {
  for (const name of namesKept(`${KEPT}${of}/`)) forget(name);
}
