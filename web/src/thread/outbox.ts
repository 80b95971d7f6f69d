/** What somebody said here and the thread does not have yet.
 *
 * It is kept in this browser until the room says that it is recorded, and said again as often as needed: its key makes
 * it one message, however often it is said. Order is kept: what is behind a message that was not taken waits for it.
 * Each message is kept under a name of its own, so that pages of one browser do not undo each other's.
 */
import { type ReadonlySignal, signal } from "@preact/signals";
import { forget, isNumber, isRecord, isText, keep, kept, namesKept, whenKeptElsewhere } from "../storage";
import type { ErrorFrame, NewMessageFrame, RecordedFrame } from "../wire";

export interface Refusal {
  readonly code: string;
  readonly message: string;
}

export interface Unsent {
  readonly key: string;
  readonly content: string;
  /** When it was said, in milliseconds since 1970; of two of one page the later has more. */
  readonly at: number;
  /** Why the room will not take it. */
  readonly refused?: Refusal;
  /** The thread has it already, and only the room's word for that is still to come. */
  readonly shown?: boolean;
}

/** Most that may wait in a thread, of all pages of the browser; past it the composer keeps what is typed. */
export const MOST = 200;
/** Refusals that stand, however often it is said. */
const LASTING = new Set([
  "invalid_message",
  "message_too_long",
  "invalid_request",
  "key_reused",
  "forbidden",
  "not_found",
]);
/** Seconds after which what was not taken is said again, where the room names no time. */
const AGAIN = 1;

/** Latest time that there is, and longest key that the room takes. */
const LATEST = 8.64e15;
const LONGEST_KEY = 255;

const isRefusal = (value: unknown): value is Refusal => isRecord(value) && isText(value.code) && isText(value.message);
const isUnsent = (value: unknown): value is Unsent =>
  isRecord(value) &&
  isText(value.key) &&
  value.key.length <= LONGEST_KEY &&
  isText(value.content) &&
  isNumber(value.at) &&
  Math.abs(value.at) <= LATEST &&
  (value.refused === undefined || isRefusal(value.refused));

/** The threads of whoever that is in which something waits to be taken. */
export function threadsWaiting(who: string): string[] {
  const beginning = `outbox/${who}/`;
  const waiting = namesKept(beginning).filter((name) => kept(name, isUnsent)?.refused === undefined);
  return [...new Set(waiting.map((name) => name.slice(beginning.length, name.lastIndexOf("/"))))];
}

export class Outbox {
  readonly #place: string;
  readonly #own: (frame: NewMessageFrame) => boolean;
  readonly #items = signal<readonly Unsent[]>([]);
  readonly #deaf: () => void;
  /** Keys that were said on this socket and not answered yet. */
  #said = new Set<string>();
  #say: ((text: string) => void) | undefined;
  #again: ReturnType<typeof setTimeout> | undefined;
  /** When that is, in milliseconds since 1970. */
  #againAt = 0;

  /** `place`: whose it is, and in which thread; it has no slash at its end. `own` tells whether a message is by whoever
   * sits here. */
  constructor(place: string, own: (frame: NewMessageFrame) => boolean) {
    this.#place = `outbox/${place}/`;
    this.#own = own;
    this.#find();
    this.#deaf = whenKeptElsewhere(this.#place, (name) => {
      // Another page said it, or threw it away.
      if (kept(name, isUnsent) === undefined) this.#without(name.slice(this.#place.length));
    });
  }

  get items(): ReadonlySignal<readonly Unsent[]> {
    return this.#items;
  }

  get isFull(): boolean {
    return Math.max(this.#items.value.length, namesKept(this.#place).length) >= MOST;
  }

  /** Whether nothing waits to be taken. */
  get isEmpty(): boolean {
    return this.#items.value.every((one) => one.refused !== undefined);
  }

  /** Returns whether it outlasts the page. */
  add(content: string): boolean {
    const at = Math.max(Date.now(), (this.#items.value.at(-1)?.at ?? 0) + 1);
    const one = { key: newKey(), content, at };
    this.#items.value = [...this.#items.value, one];
    const isKept = keep(this.#place + one.key, one);
    if (this.#again === undefined) this.#flush(); // else it waits behind what is to be said again
    return isKept;
  }

  remove(key: string): void {
    forget(this.#place + key);
    this.#without(key);
  }

  /** The page leaves the thread; what waits stays kept. */
  stop(): void {
    this.closed();
    this.#deaf();
  }

  /** A socket is open: say everything that waits, in order, also what another page left that was closed meanwhile. */
  opened(say: (text: string) => void): void {
    this.#find();
    this.#say = say;
    this.#said.clear();
    this.#waitNoMore();
    this.#flush();
  }

  closed(): void {
    this.#say = undefined;
    this.#said.clear();
    this.#waitNoMore();
  }

  recorded(frame: RecordedFrame): void {
    if (frame.client_id === undefined) return;
    this.#said.delete(frame.client_id);
    this.remove(frame.client_id);
  }

  /** Something was said in the thread: if it is what waits here it is not shown twice. */
  seen(frame: NewMessageFrame): void {
    if (frame.source !== "user" || !this.#items.value.length || !this.#own(frame)) return;
    const place = this.#items.value.findIndex(
      (one) => !one.shown && this.#said.has(one.key) && one.content === frame.content,
    );
    if (place >= 0)
      this.#items.value = this.#items.value.map((one, at) => (at === place ? { ...one, shown: true } : one));
  }

  refused(frame: ErrorFrame): void {
    const key = frame.client_id;
    if (key === undefined || !this.#said.delete(key)) return;
    if (LASTING.has(frame.code)) {
      const { code, message } = frame;
      this.#items.value = this.#items.value.map((one) =>
        one.key === key ? { ...one, refused: { code, message } } : one,
      );
      keep(
        this.#place + key,
        this.#items.value.find((one) => one.key === key),
      );
      return;
    }
    const wait = (frame.retry_after ?? AGAIN) * 1000;
    if (this.#again !== undefined && this.#againAt >= Date.now() + wait) return; // as what is before it
    this.#waitNoMore();
    this.#againAt = Date.now() + wait;
    this.#again = setTimeout(() => {
      this.#again = undefined;
      this.#flush();
    }, wait);
  }

  #find(): void {
    const items = this.#items.peek(); // an effect that opens a conversation is not run anew for each message
    const known = new Set(items.map(({ key }) => key));
    const found = namesKept(this.#place).map((name) => kept(name, isUnsent));
    const others = found.filter((one) => one !== undefined).filter(({ key }) => !known.has(key));
    if (others.length) this.#items.value = [...items, ...others].sort((one, other) => one.at - other.at);
  }

  #waitNoMore(): void {
    clearTimeout(this.#again);
    this.#again = undefined;
  }

  #flush(): void {
    for (const { key, content, refused } of this.#items.value) {
      if (!this.#say) return;
      if (refused !== undefined || this.#said.has(key)) continue;
      this.#said.add(key);
      this.#say(JSON.stringify({ type: "message", message: content, client_id: key }));
    }
  }

  #without(key: string): void {
    this.#items.value = this.#items.value.filter((one) => one.key !== key);
  }
}

/** A random one; `randomUUID` is not there for pages that did not come safely. */
export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
