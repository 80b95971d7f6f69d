/** The room's HTTP API. */
import { accessToken, forgetSignIn, isSignedIn, signedInWith } from "./session";
import type { HistoryMessage, Invite, Me, Member, Role, RoomInfo, ThreadInList, ThreadSettings, Tokens } from "./wire";

/** Milliseconds that the room may take to answer. */
const TIMEOUT = 20_000;

/** What the room refused, or that it could not be asked. */
export class Problem extends Error {
  /** `status` is 0 where there was no answer. */
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    /** Seconds after which it may be asked again. */
    readonly retryAfter: number | undefined = undefined,
  ) {
    super(message);
  }

  /** Whether the same may be answered otherwise in a while. */
  get passes(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

export const asProblem = (error: unknown): Problem =>
  error instanceof Problem ? error : new Problem(0, "unreachable", String(error));

const isMissing = (error: unknown): boolean => asProblem(error).code === "not_found";

/** What somebody else took away a moment before is away, as was wanted. */
function unlessMissing(error: unknown): void {
  if (!isMissing(error)) throw error;
}

type Method = "GET" | "POST" | "PUT" | "DELETE";

/** Ask, as whoever is signed in. Rejects with Problem. */
async function ask<T>(method: Method, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<T> {
  const token = await tokenOrProblem();
  const answer = await asked(method, path, body, headers, token);
  if (answer.status !== 401 || token === undefined) return read<T>(answer);
  const another = await tokenOrProblem(token);
  if (another === undefined) return read<T>(answer);
  const second = await asked(method, path, body, headers, another);
  if (second.status === 401) forgetSignIn();
  return read<T>(second);
}

async function tokenOrProblem(refused?: string): Promise<string | undefined> {
  try {
    return await accessToken(refused);
  } catch (error) {
    throw asProblem(error);
  }
}

async function asked(
  method: Method,
  path: string,
  body: unknown,
  headers: Record<string, string>,
  token: string | undefined,
): Promise<Response> {
  const all = { ...headers };
  if (body !== undefined) all["Content-Type"] = "application/json";
  if (token !== undefined) all.Authorization = `Bearer ${token}`;
  const request: RequestInit = { method, headers: all, signal: AbortSignal.timeout(TIMEOUT), cache: "no-store" };
  if (body !== undefined) request.body = JSON.stringify(body);
  try {
    return await fetch(path, request);
  } catch (error) {
    throw asProblem(error);
  }
}

async function read<T>(answer: Response): Promise<T> {
  if (answer.status === 204) return undefined as T;
  let content: unknown;
  try {
    content = await answer.json();
  } catch {
    throw new Problem(answer.ok ? 0 : answer.status, "unreadable", answer.statusText);
  }
  if (answer.ok) return content as T;
  const { code = "unknown", message = answer.statusText } = content as { code?: string; message?: string };
  const wait = Number(answer.headers.get("Retry-After"));
  throw new Problem(answer.status, code, message, wait > 0 ? wait : undefined);
}

const inThread = (threadId: string, rest: string) => `/api/threads/${encodeURIComponent(threadId)}/${rest}`;

export const roomInfo = () => ask<RoomInfo>("GET", "/api/room");
export const me = () => ask<Me>("GET", "/api/me");

/** Threads that are asked for at a time, and at most. */
export const THREADS_OF_A_REQUEST = 500;
export const MOST_THREADS = 2_000;

/** Those that are found, by their names, up to MOST_THREADS. */
export async function threads(): Promise<ThreadInList[]> {
  const found: ThreadInList[] = [];
  let part: ThreadInList[];
  do {
    const query = new URLSearchParams({ limit: String(THREADS_OF_A_REQUEST) });
    const last = found.at(-1);
    if (last) query.set("after", last.thread_id);
    part = (await ask<{ threads: ThreadInList[] }>("GET", `/api/threads?${query}`)).threads;
    found.push(...part);
  } while (part.length === THREADS_OF_A_REQUEST && found.length < MOST_THREADS);
  return found;
}

export const makeThread = (wanted: { thread_id?: string; visibility: "private" | "open" }) =>
  ask<ThreadInList>("POST", "/api/threads", wanted);
export const changeVisibility = (threadId: string, visibility: "private" | "open") =>
  ask<unknown>("PUT", inThread(threadId, "visibility"), { visibility });

/** A page of a thread's messages, oldest first: the newest, those before a number or those after one. */
export async function history(
  threadId: string,
  page: { limit: number; before?: number; after?: number },
): Promise<HistoryMessage[]> {
  const query = new URLSearchParams({ limit: String(page.limit) });
  if (page.before !== undefined) query.set("before", String(page.before));
  if (page.after !== undefined) query.set("after", String(page.after));
  return (await ask<{ messages: HistoryMessage[] }>("GET", inThread(threadId, `history?${query}`))).messages;
}

/** Newest first: a page of those that have all the words, or of those before a number. */
export async function search(
  threadId: string,
  q: string,
  page: { limit: number; before?: number },
): Promise<HistoryMessage[]> {
  const query = new URLSearchParams({ q, limit: String(page.limit) });
  if (page.before !== undefined) query.set("before", String(page.before));
  return (await ask<{ messages: HistoryMessage[] }>("GET", inThread(threadId, `search?${query}`))).messages;
}

export const message = (messageId: string) => ask<HistoryMessage>("GET", `/api/messages/${messageId}`);
export const retry = (messageId: string) => ask<unknown>("POST", `/api/messages/${messageId}/retry`);

/** Say several things at once as a program of that name. */
export const feed = (threadId: string, program: string, messages: { message: string; key: string }[]) =>
  ask<unknown>("POST", inThread(threadId, "messages"), messages, { "M3-Client": program });

export const settings = async (threadId: string) =>
  (await ask<{ settings: ThreadSettings }>("GET", inThread(threadId, "settings"))).settings;
export const changeSettings = (threadId: string, wanted: ThreadSettings) =>
  ask<unknown>("PUT", inThread(threadId, "settings"), wanted);

export const members = async (threadId: string) =>
  (await ask<{ members: Member[] }>("GET", inThread(threadId, "members"))).members;
const memberPath = (threadId: string, name: string) => inThread(threadId, `members/${encodeURIComponent(name)}`);
/** Rejects with the code `nobody` where there is nobody of that name, or no such thread any more. */
export const admit = (threadId: string, name: string, role: Role) =>
  ask<Member>("PUT", memberPath(threadId, name), { role }).catch((error: unknown) => {
    throw isMissing(error) ? new Problem(404, "nobody", "There is nobody of that name.") : error;
  });
/** Of a member: whoever was removed meanwhile is let in again by nobody who did not mean to. */
export const changeRole = (threadId: string, name: string, role: Role) =>
  ask<Member>("PUT", memberPath(threadId, name), { role }, { "If-Match": "*" });
export const dismiss = (threadId: string, member: Pick<Member, "name" | "kind">) =>
  ask<void>("DELETE", `${memberPath(threadId, member.name)}?kind=${member.kind}`).catch(unlessMissing);

export const invites = async (threadId: string) =>
  (await ask<{ invites: Invite[] }>("GET", inThread(threadId, "invites"))).invites;
/** `expiresIn` in seconds. The invite is told this once. */
export const invite = async (threadId: string, role: Invite["role"], expiresIn: number) =>
  (await ask<{ invite: string }>("POST", inThread(threadId, "invites"), { role, expires_in: expiresIn })).invite;
export const takeInviteBack = (threadId: string, prefix: string) =>
  ask<void>("DELETE", inThread(threadId, `invites/${encodeURIComponent(prefix)}`)).catch(unlessMissing);
/** Be a member of the thread that the invite is for. */
export const accept = (invite: string) => ask<{ thread_id: string; role: Role }>("POST", "/api/invites", { invite });

/** With a new password where the one given is for one sign-in. */
export async function signIn(who: {
  tenant?: string;
  name: string;
  password: string;
  new_password?: string;
}): Promise<void> {
  signedInWith(await ask<Tokens>("POST", "/api/login", who));
}

/** Make an account by an invite, and be a member of its thread. */
export const signUp = (who: { invite: string; name: string; password: string }) =>
  ask<Tokens & { thread_id: string }>("POST", "/api/signup", who);

/** Forgotten here in any case; by the room too if it can be asked. */
export async function signOut(): Promise<void> {
  try {
    await ask<void>("POST", "/api/logout");
  } finally {
    forgetSignIn();
  }
}

export const changePassword = (password: string, newPassword: string) =>
  ask<void>("POST", "/api/password", { password, new_password: newPassword });

/** The address of a socket of the thread, with what opens it once where people sign in. */
export async function socketAddress(threadId: string, query: Record<string, string>): Promise<string> {
  const all = new URLSearchParams({ events: "all", ...query });
  if (isSignedIn.value) all.set("ticket", (await ask<{ ticket: string }>("POST", "/api/ws-ticket")).ticket);
  return `${location.origin.replace(/^http/, "ws")}/ws/chat/${encodeURIComponent(threadId)}?${all}`;
}
