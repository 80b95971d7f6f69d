/** The threads that whoever sits here finds, and how much of each they have not seen. */
import { effect, signal } from "@preact/signals";
import { history, THREADS_OF_A_REQUEST, threads } from "./api";
import { conversation, DEFAULT_THREAD, name, openAgain, place, role, threadId, who } from "./app";
import { isNumber, keep, kept, namesKept } from "./storage";
import type { ThreadInList } from "./wire";

export interface Listed {
  readonly threadId: string;
  readonly visibility: ThreadInList["visibility"];
  readonly role: ThreadInList["role"];
  /** Milliseconds since 1970; 0 where nothing was said yet. */
  readonly lastAt: number;
  readonly unread: number;
}

/** Milliseconds between looks at the list while the page is seen, for each request that a look takes. */
const INTERVAL = 10_000;
/** How many of these went by since the last look. */
let intervals = 0;
/** Unread messages that are counted; there may be more. */
export const COUNTED = 99;
/** Threads whose unread messages are asked for in an interval, and how many may be at this look. */
const AT_ONCE = 10;
let left = 0;
/** Milliseconds within which what was seen is kept. */
const KEEPING = 1_000;

export const listed = signal<readonly Listed[]>([]);

/** The number up to which each thread was seen, by whom. Each is kept under a name of its own, for all pages. */
const seen = new Map<string, number>();
let seenAt = "";
/** Nothing was kept here before this page, which has not looked yet. */
let isFirstVisit = false;
/** Threads of which more was seen than is kept: a flood is seen often. */
const unkept = new Set<string>();
let keeping: ReturnType<typeof setTimeout> | undefined;
/** How many were unread when the thread's head was at that number. */
const counted = new Map<string, { head: number; seen: number; unread: number }>();

/** Everything in the open thread up to this number was looked at. */
export function sawUpTo(thread: string, number: number): void {
  if ((seen.get(thread) ?? -1) >= number) return;
  seen.set(thread, number);
  unkept.add(thread);
  keeping ??= setTimeout(keepSeen, KEEPING);
  if (listed.value.some((one) => one.threadId === thread && one.unread)) {
    listed.value = listed.value.map((one) => (one.threadId === thread ? { ...one, unread: 0 } : one));
  }
}

function keepSeen(): void {
  clearTimeout(keeping);
  keeping = undefined;
  for (const thread of unkept) keep(seenAt + thread, seen.get(thread));
  unkept.clear();
}

/** What was seen of the thread, in any page of this browser; -1 where nothing is known of that. */
const knownOf = (id: string): number => Math.max(seen.get(id) ?? -1, kept(seenAt + id, isNumber) ?? -1);

/** Look now. Where the room is away the list stays as it is. */
export async function lookAtThreads(): Promise<void> {
  const mine = who.value;
  if (!mine) return;
  const passed = intervals;
  intervals = 0;
  const ever = [...seen.keys(), ...namesKept(seenAt).map((one) => one.slice(seenAt.length))];
  const before = new Map(ever.map((id) => [id, knownOf(id)])); // more may be seen while the room answers
  let found: ThreadInList[];
  try {
    found = await threads();
  } catch {
    return;
  }
  if (who.value !== mine) return;
  for (const { thread_id: id, head } of found) {
    // To whoever comes for the first time nothing is new, and later a thread that was not there before. What was seen of a
    // thread that was taken back, as by a restored backup, is seen no longer.
    const known = knownOf(id);
    const isTakenBack = head < (before.get(id) ?? 0);
    const now = known < 0 ? (isFirstVisit ? head : 0) : isTakenBack ? head : known;
    seen.set(id, now);
    if (now !== known) unkept.add(id);
  }
  isFirstVisit = false;
  keepSeen();
  left = AT_ONCE * Math.max(passed, 1);
  const looked = await Promise.all(
    found.map(async (thread) => ({
      threadId: thread.thread_id,
      visibility: thread.visibility,
      role: thread.role,
      lastAt: Date.parse(thread.last_at ?? "") || 0,
      unread: await unreadIn(thread),
    })),
  );
  if (who.value !== mine) return;
  const isIn = (threads: readonly Listed[]) => threads.some((thread) => thread.threadId === threadId.value);
  if (!isIn(listed.value) && isIn(looked) && conversation.value?.problem.value) openAgain();
  listed.value = looked.sort((one, other) => other.lastAt - one.lastAt || one.threadId.localeCompare(other.threadId));
}

/** The thread that is being looked at, where its new messages are seen as they come. */
const open = (): string | undefined => (document.visibilityState === "visible" ? threadId.value : undefined);

/** Numbers are also of changes, so the messages themselves are counted, and not those of whoever sits here. */
async function unreadIn({ thread_id: id, head }: ThreadInList): Promise<number> {
  const since = seen.get(id) ?? 0;
  if (head <= since || id === open()) return 0;
  const known = counted.get(id);
  if (known?.seen === since && (known.head === head || known.unread > COUNTED)) return known.unread;
  if (--left < 0) return known?.unread ?? 0; // at the next look
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
    seenAt = `seen/${place.value}/`;
    isFirstVisit = !namesKept(seenAt).length;
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
    if (document.visibilityState !== "visible") return;
    intervals += 1;
    if (intervals * THREADS_OF_A_REQUEST > listed.value.length) void lookAtThreads();
  }, INTERVAL);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") void lookAtThreads();
    else keepSeen(); // the page may not come back
  });
}

/** The list with the open thread in it, and in an open room the one that everybody begins in, whether the room knows them
 * yet or not. */
export function withOpen(threads: readonly Listed[], id: string): readonly Listed[] {
  const has = (one: string) => threads.some((thread) => thread.threadId === one);
  const unknown = (one: string): Listed => ({ threadId: one, visibility: "open", role: null, lastAt: 0, unread: 0 });
  const begins = who.value?.kind === "anyone" && id !== DEFAULT_THREAD && !has(DEFAULT_THREAD);
  const isThere = has(id) || conversation.value?.problem.value;
  return [...(isThere ? [] : [unknown(id)]), ...threads, ...(begins ? [unknown(DEFAULT_THREAD)] : [])];
}
