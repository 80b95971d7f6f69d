/** What the page is about just now: the room, who sits here, and the thread that is open. */
import { batch, computed, effect, signal } from "@preact/signals";
import * as api from "./api";
import { asProblem, type Problem } from "./api";
import { someName } from "./names";
import { ownName } from "./preferences";
import { isSignedIn, signedInWith, whichSignIn } from "./session";
import { here, isText, keep, kept } from "./storage";
import { Conversation, type Speaker } from "./thread/conversation";
import { sayLeftovers } from "./thread/leftovers";
import type { Me, Role, RoomInfo } from "./wire";

export const DEFAULT_THREAD = "default";
/** Whose outboxes, drafts and seen numbers those of an open room are: this browser's. */
export const OPEN_PLACE = "open";
/** Milliseconds between attempts to reach a room that is away. */
const AGAIN = 2_000;

export const room = signal<RoomInfo | undefined>(undefined);
export const who = signal<Me | undefined>(undefined);
/** Why the room cannot be shown at all, while that is so. */
export const trouble = signal<Problem | undefined>(undefined);
export const conversation = signal<Conversation | undefined>(undefined);
/** A sentence for whoever sits here, shown for a while. */
export const toast = signal<string | undefined>(undefined);

/** The windows over the page, of which one is open at a time. */
export type DialogName = "settings" | "members" | "search" | "preferences" | "new-thread" | "demo";
export const dialog = signal<DialogName | undefined>(undefined);
export const closeDialog = (): void => {
  dialog.value = undefined;
};

const TENANT = "tenant";
/** Of the invitation in the address, or of whoever was here last, where there are several. */
export const likelyTenant = (): string =>
  (room.value?.several_tenants && (tenantOfInvite() ?? kept(TENANT, isText))) || "";

/** How whoever sits here stands to the open thread, as far as the list of threads tells; set by it. */
export const role = signal<Role | null | undefined>(undefined);

export const needsSignIn = computed(() => room.value?.auth === "required" && !isSignedIn.value);
/** May change how the agent deals with the thread, and who else is in it. */
export const mayConfigure = computed(() => who.value?.kind !== "person" || role.value === "owner");
export const maySpeak = computed(() => who.value?.kind !== "person" || role.value !== "reader");

/** What others know whoever sits here by. */
export const name = computed(() => (room.value?.auth === "required" ? who.value?.name : ownName.value) ?? undefined);

/** Whose what this browser keeps of whoever sits here is. */
export const place = computed(() =>
  who.value?.kind === "anyone" ? OPEN_PLACE : `${who.value?.tenant}.${who.value?.name}`,
);

/** The thread is in the address's query. An invitation is behind its `#`, which no browser sends to anybody, with its
 * tenant where there are several. */
const query = () => new URLSearchParams(location.search);
const behindHash = (name: "invite" | "tenant") => new URLSearchParams(location.hash.slice(1)).get(name) || null;
const readInvite = () => behindHash("invite");
export const inviteInAddress = signal(readInvite());
/** What the room calls one (TENANTS), so that nobody has the page say anything else. */
const TENANT_NAME = /^[a-z0-9][a-z0-9-]{0,31}$/;
function tenantOfInvite(): string | undefined {
  const tenant = behindHash("tenant") ?? "";
  return room.value?.several_tenants && inviteInAddress.peek() && TENANT_NAME.test(tenant) ? tenant : undefined;
}
export function addressOfInvite(invite: string): string {
  const tenant = room.value?.several_tenants && who.value?.tenant;
  return `${location.origin}/#${new URLSearchParams({ invite, ...(tenant && { tenant }) })}`;
}
/** An empty name is none. */
const threadInAddress = () => query().get("thread") || DEFAULT_THREAD;
export const threadId = signal(threadInAddress());

export const addressOf = (thread: string): string =>
  thread === DEFAULT_THREAD ? "/" : `/?${new URLSearchParams({ thread })}`;

export function openThread(thread: string): void {
  if (thread !== threadId.value) history.pushState(null, "", addressOf(thread));
  readAddress();
}

function readAddress(): void {
  batch(() => {
    threadId.value = threadInAddress();
    inviteInAddress.value = readInvite();
  });
}

for (const moved of ["popstate", "hashchange"]) addEventListener(moved, readAddress);

export async function start(): Promise<void> {
  if (ownName.value === null) ownName.value = someName();
  await untilReached(async () => {
    room.value = await api.roomInfo();
  });
  effect(beginAnewForAnother());
  effect(() => {
    const coming = new AbortController();
    if (needsSignIn.value || isEnding.value) who.value = undefined;
    else void untilReached(() => enter(coming.signal), coming.signal);
    return () => coming.abort();
  });
  addEventListener("hashchange", () => {
    if (who.value) void untilReached(() => takeUpInvite(who.value));
  });
  effect(openConversation);
}

/** Whoever was here goes: the page shows nothing more, and is loaded anew once the room can be reached. */
export const isEnding = signal(false);

/** Whoever signs out, or in as somebody else in another page of this browser, leaves nothing here of what was said and
 * typed. While the room is away the page waits for it, since a browser's own page of errors would not. */
function beginAnewForAnother(): () => void {
  let before = whichSignIn.peek();
  return () => {
    const now = whichSignIn.value;
    if (before !== undefined && now !== before) {
      for (const name of here.namesKept("")) here.forget(name);
      isEnding.value = true;
      void untilReached(async () => void (await api.roomInfo())).then(() => location.reload());
    }
    before = now;
  };
}

/** Whoever has just come in is known, and taken to where an invitation leads. */
async function enter(coming: AbortSignal): Promise<void> {
  const known = await api.me();
  await takeUpInvite(known);
  if (coming.aborted) return;
  who.value = known;
  keep(TENANT, known.tenant);
}

/** Which thread the invitation is for, why it could not be taken up, or for which tenant it is, of which one is not. */
export type Invited = { accepted: string } | { refused: Problem } | { elsewhere: string };
const invitation = signal<Invited | undefined>(undefined);
export const invited = computed(() => invitation.value);

/** Make an account by the invitation, and be in its thread. Rejects with Problem. */
export async function signUp(invite: string, name: string, password: string): Promise<void> {
  const made = await api.signUp({ invite, name, password });
  arrive(made.thread_id, { accepted: made.thread_id });
  signedInWith(made);
}

async function takeUpInvite(known: Me | undefined): Promise<void> {
  const invite = inviteInAddress.peek();
  if (invite === null || room.value?.auth !== "required") return;
  const tenant = tenantOfInvite();
  try {
    const { thread_id } = await api.accept(invite);
    arrive(thread_id, { accepted: thread_id });
  } catch (error) {
    const problem = asProblem(error);
    if (problem.passes || problem.status === 401) throw problem; // it is there still after another sign-in
    const isElsewhere = tenant !== undefined && tenant !== known?.tenant && problem.code === "not_found";
    if (isElsewhere)
      invitation.value = { elsewhere: tenant }; // it stays in the address, for who signs in there
    else arrive(threadId.peek(), { refused: problem });
  }
}

function arrive(thread: string, how: Invited): void {
  history.replaceState(null, "", addressOf(thread));
  batch(() => {
    readAddress();
    invitation.value = how;
    if ("accepted" in how) openAgain();
  });
}

/** Go on trying while the room is away. */
async function untilReached(work: () => Promise<void>, wanted?: AbortSignal): Promise<void> {
  while (!wanted?.aborted) {
    try {
      await work();
      trouble.value = undefined;
      return;
    } catch (error) {
      trouble.value = asProblem(error);
      if (!trouble.value.passes) return;
      const wait = Math.max(AGAIN, (trouble.value.retryAfter ?? 0) * 1000);
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

/** How often a thread turned out to be another than it was. */
const restarts = signal(0);
/** Open the thread anew, which may be another than it was, or to be read only now. */
export function openAgain(): void {
  restarts.value++;
}

/** Whoever comes in, and whichever thread they go to, has its conversation opened and the one before closed. */
function openConversation(): (() => void) | undefined {
  restarts.value;
  const known = who.value;
  const thread = threadId.value;
  if (!known) return;
  const open = room.value?.auth === "open";
  const speaker: Speaker = { client: open ? name.value : undefined, name: name.value };
  const whose = place.value;
  const begin = (id: string, again: () => void) => new Conversation(id, speaker, whose, again);
  const opened = begin(thread, openAgain);
  conversation.value = opened;
  void opened.start();
  const leaving = new AbortController();
  const unsubscribe = opened.state.subscribe((state) => {
    if (state === "open") void sayLeftovers(whose, thread, (id) => begin(id, () => undefined), leaving.signal);
  });
  return () => {
    leaving.abort();
    unsubscribe();
    opened.stop();
    conversation.value = undefined;
  };
}
