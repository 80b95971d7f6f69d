/** What somebody said here and the thread does not have yet.
 *
 * It is kept in this browser until the room says that it is recorded, and said again as often as needed: its key makes
 * it one message, however often it is said. Order is kept: what is behind a message that was not taken waits for it.
 */
import { type ReadonlySignal, signal } from "@preact/signals";
import { isRecord, isText, keep, kept } from "../storage";
import type { ErrorFrame, NewMessageFrame, RecordedFrame } from "../wire";

export interface Unsent {
  readonly key: string;
  readonly content: string;
  /** When it was said, in milliseconds since 1970. */
  readonly at: number;
  /** Why the room will not take it. */
  readonly refused?: string;
  /** The thread has it already, and only the room's word for that is still to come. */
  readonly shown?: boolean;
}

/** Most that may wait; past it the composer keeps what is typed. */
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

const isUnsent = (value: unknown): value is Unsent[] =>
  Array.isArray(value) &&
  value.every((one) => isRecord(one) && isText(one.key) && isText(one.content) && typeof one.at === "number");

export class Outbox {
  readonly #name: string;
  readonly #own: (frame: NewMessageFrame) => boolean;
  readonly #items = signal<readonly Unsent[]>([]);
  /** Keys that were said on this socket and not answered yet. */
  #said = new Set<string>();
  #say: ((text: string) => void) | undefined;
  #again: ReturnType<typeof setTimeout> | undefined;
  /** When that is, in milliseconds since 1970. */
  #againAt = 0;

  /** `own` tells whether a message is by whoever sits here. */
  constructor(place: string, own: (frame: NewMessageFrame) => boolean) {
    this.#name = `outbox.${place}`;
    this.#own = own;
    this.#items.value = (kept(this.#name, isUnsent) ?? []).map(({ key, content, at, refused }) =>
      refused === undefined ? { key, content, at } : { key, content, at, refused },
    );
  }

  get items(): ReadonlySignal<readonly Unsent[]> {
    return this.#items;
  }

  get isFull(): boolean {
    return this.#items.value.length >= MOST;
  }

  /** Whether nothing waits to be taken. */
  get isEmpty(): boolean {
    return this.#items.value.every((one) => one.refused !== undefined);
  }

  add(content: string): void {
    this.#change([...this.#items.value, { key: newKey(), content, at: Date.now() }]);
    if (this.#again === undefined) this.#flush(); // else it waits behind what is to be said again
  }

  remove(key: string): void {
    this.#change(this.#items.value.filter((one) => one.key !== key));
  }

  /** A socket is open: say everything that waits, in order. */
  opened(say: (text: string) => void): void {
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
      this.#change(this.#items.value.map((one) => (one.key === key ? { ...one, refused: frame.message } : one)));
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

  /** What other pages of this browser keep in the same place stays there. */
  #change(items: readonly Unsent[]): void {
    const own = new Set([...this.#items.value, ...items].map((one) => one.key));
    const all = [...(kept(this.#name, isUnsent) ?? []).filter((one) => !own.has(one.key)), ...items];
    this.#items.value = items;
    keep(this.#name, all.length ? all : null);
  }
}

/** A random one; `randomUUID` is not there for pages that did not come safely. */
function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
