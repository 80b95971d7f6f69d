/** The threads that whoever sits here finds, and how much of each they have not seen. */
import { effect, signal } from "@preact/signals";
import { history, threads } from "./api";
import { conversation, DEFAULT_THREAD, name, role, threadId, who } from "./app";
import { isRecord, keep, kept } from "./storage";
import type { ThreadInList } from "./wire";

export interface Listed {
  readonly threadId: string;
  readonly visibility: ThreadInList["visibility"];
  readonly role: ThreadInList["role"];
  /** Milliseconds since 1970; 0 where nothing was said yet. */
  readonly lastAt: number;
  readonly unread: number;
}

/** Milliseconds between looks at the list while the page is seen. */
const INTERVAL = 10_000;
/** Unread messages that are counted; there may be more. */
export const COUNTED = 99;
/** Threads whose unread messages are counted at one look. */
const AT_ONCE = 10;

export const listed = signal<readonly Listed[]>([]);

const isSeen = (value: unknown): value is Record<string, number> =>
  isRecord(value) && Object.values(value).every((number) => typeof number === "number");

/** The number up to which each thread was seen here, by whom. */
let seen: Record<string, number> = {};
let place = "";
/** How many were unread when the thread's head was at that number. */
const counted = new Map<string, { head: number; seen: number; unread: number }>();

/** Everything in the open thread up to this number was looked at. */
export function sawUpTo(thread: string, number: number): void {
  if ((seen[thread] ?? -1) >= number) return;
  seen[thread] = number;
  keep(place, seen);
  if (listed.value.some((one) => one.threadId === thread && one.unread)) {
    listed.value = listed.value.map((one) => (one.threadId === thread ? { ...one, unread: 0 } : one));
  }
}

/** Look now. Where the room is away the list stays as it is. */
export async function lookAtThreads(): Promise<void> {
  const mine = who.value;
  if (!mine) return;
  let found: ThreadInList[];
  try {
    found = await threads();
  } catch {
    return;
  }
  if (who.value !== mine) return;
  seen = seenHereOrElsewhere(found);
  keep(place, seen);
  let left = AT_ONCE;
  const looked = await Promise.all(
    found.map(async (thread) => {
      const id = thread.thread_id;
      const unread =
        thread.head > (seen[id] ?? 0) && id !== open() && left-- > 0
          ? await unreadIn(thread)
          : (knownUnread(thread) ?? 0);
      return {
        threadId: id,
        visibility: thread.visibility,
        role: thread.role,
        lastAt: Date.parse(thread.last_at ?? "") || 0,
        unread,
      };
    }),
  );
  if (who.value !== mine) return;
  listed.value = looked.sort((one, other) => other.lastAt - one.lastAt || one.threadId.localeCompare(other.threadId));
}

/** Of the threads that are found. Another page of this browser may have seen more. To whoever comes for the first time
 * nothing is new, and later a thread that was not there before. */
function seenHereOrElsewhere(found: readonly ThreadInList[]): Record<string, number> {
  const elsewhere = kept(place, isSeen);
  const known = ({ thread_id: id, head }: ThreadInList) =>
    Math.max(seen[id] ?? elsewhere?.[id] ?? (elsewhere ? 0 : head), elsewhere?.[id] ?? 0);
  return Object.fromEntries(found.map((thread) => [thread.thread_id, known(thread)]));
}

/** The thread that is being looked at, where its new messages are seen as they come. */
const open = (): string | undefined => (document.visibilityState === "visible" ? threadId.value : undefined);

function knownUnread({ thread_id: id, head }: ThreadInList): number | undefined {
  const known = counted.get(id);
  return known && known.seen === seen[id] && head > known.seen && id !== open() ? known.unread : undefined;
}

/** Numbers are also of changes, so the messages themselves are counted, and not those of whoever sits here. */
async function unreadIn({ thread_id: id, head }: ThreadInList): Promise<number> {
  const since = seen[id] ?? 0;
  const known = counted.get(id);
  if (known && known.seen === since && (known.head === head || known.unread > COUNTED)) return known.unread;
  try {
    const page = await history(id, { limit: COUNTED + 1, after: since });
    const unread = page.filter((said) => said.author === null || said.author !== name.value).length;
    counted.set(id, { head, seen: since, unread });
    return unread;
  } catch {
    return known?.unread ?? 0;
  }
}

/** Go on looking, for as long as the page is there. */
export function watchThreads(): void {
  effect(() => {
    const known = who.value;
    if (!known) {
      listed.value = [];
      return;
    }
    place = `seen.${known.kind === "anyone" ? "open" : `${known.tenant}.${known.name}`}`;
    seen = kept(place, isSeen) ?? {};
    void lookAtThreads();
  });
  effect(() => {
    const here = listed.value.find((one) => one.threadId === threadId.value);
    role.value = here?.role;
  });
  effect(() => {
    // a thread that is new appears once something is said in it
    if (conversation.value) void lookAtThreads();
  });
  setInterval(() => {
    if (document.visibilityState === "visible") void lookAtThreads();
  }, INTERVAL);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") void lookAtThreads();
  });
}

/** The list with the open thread in it, and in an open room the one that everybody begins in, whether the room knows them
 * yet or not. */
export function withOpen(threads: readonly Listed[], id: string): readonly Listed[] {
  const has = (one: string) => threads.some((thread) => thread.threadId === one);
  const unknown = (one: string): Listed => ({ threadId: one, visibility: "open", role: null, lastAt: 0, unread: 0 });
  const begins = who.value?.kind === "anyone" && id !== DEFAULT_THREAD && !has(DEFAULT_THREAD);
  return [...(has(id) ? [] : [unknown(id)]), ...threads, ...(begins ? [unknown(DEFAULT_THREAD)] : [])];
}
