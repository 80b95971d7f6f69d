// @vitest-environment jsdom
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Me, RoomInfo } from "../src/wire";

const ANN: Me = { kind: "person", tenant: "default", name: "ann" };

/** A room of one account, whose passwords, sign-ins and invites are the test's to change. */
const room = {
  auth: "required" as "open" | "required",
  hasSeveralTenants: false,
  isAway: false,
  isBusy: false,
  /** Tokens that are good, and how many were given out. */
  access: new Set<string>(),
  refresh: new Set<string>(),
  given: 0,
  asked: [] as { path: string; body: unknown }[],
};

const refuses = (status: number, code: string) => Response.json({ code, message: code }, { status });

/** Of a new sign-in, or more of one that is known. */
function tokens(which: string) {
  const number = ++room.given;
  const given = { access_token: `access ${number}`, refresh_token: `m3r_${which}_${number}`, expires_in: 600 };
  room.access = new Set([given.access_token]);
  room.refresh = new Set([given.refresh_token]);
  return given;
}

async function answer(path: string, request: RequestInit): Promise<Response> {
  const body = request.body === undefined ? undefined : JSON.parse(request.body as string);
  room.asked.push({ path, body });
  if (room.isAway) throw new TypeError("nobody answers");
  if (room.isBusy) return new Response("{}", { status: 429, headers: { "Retry-After": "30" } });
  const isIn = room.access.has((request.headers as Record<string, string>).Authorization?.slice(7) ?? "");
  if (path === "/api/room") return Response.json({ auth: room.auth, several_tenants: room.hasSeveralTenants });
  if (path === "/api/login")
    return body.password === "good" ? Response.json(tokens(`another${room.given}`)) : refuses(401, "not_signed_in");
  if (path === "/api/signup")
    return body.invite === "m3i_good"
      ? Response.json({ ...tokens("new"), thread_id: "show", role: "member" }, { status: 201 })
      : refuses(404, "not_found");
  if (path === "/api/refresh")
    return room.refresh.has(body.refresh_token) ? Response.json(tokens("0")) : refuses(401, "not_signed_in");
  if (!isIn && room.auth === "required") return refuses(401, "not_signed_in");
  if (path === "/api/me")
    return Response.json(room.auth === "open" ? { kind: "anyone", tenant: "default", name: null } : ANN);
  if (path === "/api/invites")
    return body.invite === "m3i_good"
      ? Response.json({ thread_id: "show", role: "member" })
      : refuses(404, "not_found");
  if (path === "/api/ws-ticket") return Response.json({ ticket: "t" });
  if (path === "/api/logout") {
    room.access.clear();
    room.refresh.clear();
    return new Response(null, { status: 204 });
  }
  return Response.json({ messages: [] }); // of a thread's history
}

class FakeSocket {
  static opened: FakeSocket[] = [];
  isClosed = false;

  constructor(readonly url: string) {
    FakeSocket.opened.push(this);
  }

  close(): void {
    this.isClosed = true;
  }
}

const reload = vi.fn();
const here = window.location;
/** The page's own, which loads nothing. */
const place = new Proxy({}, { get: (_, name) => (name === "reload" ? reload : Reflect.get(here, name)) });

let app: typeof import("../src/app");
let api: typeof import("../src/api");

/** Everything that is due by then, timers and promises. */
const pass = (milliseconds = 10) => vi.advanceTimersByTimeAsync(milliseconds);

/** The page as it is loaded at an address. */
async function load(address = "/"): Promise<void> {
  history.replaceState(null, "", address);
  vi.resetModules();
  app = await import("../src/app");
  api = await import("../src/api");
  void app.start();
  await pass();
}

/** Signed in here before, with an access token that is good for some time. */
const wasSignedIn = (number = 0) =>
  localStorage.setItem(
    "m3.sign-in",
    JSON.stringify({ access: `access ${number}`, refresh: `m3r_${number}_secret`, renewAt: Date.now() + 60_000 }),
  );
const isKept = () => localStorage.getItem("m3.sign-in") !== null;
const paths = () => room.asked.map(({ path }) => path);
const opened = () => FakeSocket.opened.map(({ url }) => new URL(url).pathname);
const address = () => here.pathname + here.search + here.hash;

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(globalThis, "addEventListener");
  vi.stubGlobal("fetch", answer);
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("location", place);
  localStorage.clear();
  reload.mockReset();
  FakeSocket.opened = [];
  Object.assign(room, {
    auth: "required",
    hasSeveralTenants: false,
    isAway: false,
    isBusy: false,
    given: 0,
    asked: [],
  });
  room.access = new Set(["access 0"]);
  room.refresh = new Set(["m3r_0_secret"]);
});

/** The page is gone, and hears of nothing. */
afterEach(async () => {
  await pass();
  app.who.value = undefined;
  for (const [name, listener] of vi.mocked(addEventListener).mock.calls) removeEventListener(name, listener);
  vi.restoreAllMocks();
  vi.useRealTimers();
});

test("whoever is signed in comes at once into the thread of the address", async () => {
  wasSignedIn();
  await load("/?thread=show");
  expect(app.needsSignIn.value).toBe(false);
  expect(app.who.value).toEqual(ANN);
  expect(app.name.value).toBe("ann");
  expect(app.place.value).toBe("default.ann");
  expect(app.likelyTenant()).toBe("");
  app.room.value = { ...app.room.value, several_tenants: true } as RoomInfo;
  expect(app.likelyTenant()).toBe("default");
  expect(app.conversation.value?.threadId).toBe("show");
  expect(opened()).toEqual(["/ws/chat/show"]);
});

test("whoever is not is asked to, and of the room nothing is asked but what it is like", async () => {
  await load();
  expect(app.needsSignIn.value).toBe(true);
  expect(paths()).toEqual(["/api/room"]);
});

test("a wrong password lets nobody in, and the right one after it does", async () => {
  await load();
  await expect(api.signIn({ name: "ann", password: "bad" })).rejects.toMatchObject({ code: "not_signed_in" });
  await pass();
  expect(app.needsSignIn.value).toBe(true);
  expect(app.who.value).toBeUndefined();
  expect(isKept()).toBe(false);
  await api.signIn({ name: "ann", password: "good" });
  await pass();
  expect(app.who.value).toEqual(ANN);
  expect(opened()).toEqual(["/ws/chat/default"]);
  expect(isKept()).toBe(true);
  expect(reload).not.toHaveBeenCalled();
});

test("an access token that ended is renewed, of which nobody notices anything", async () => {
  wasSignedIn();
  room.access.clear();
  await load();
  expect(app.who.value).toEqual(ANN);
  expect(reload).not.toHaveBeenCalled();
});

test("a sign-in that the room does not know any more is over, and the page begins anew", async () => {
  wasSignedIn();
  room.access.clear();
  room.refresh.clear();
  await load();
  expect(isKept()).toBe(false);
  expect(reload).toHaveBeenCalledOnce();
  await load();
  expect(app.needsSignIn.value).toBe(true);
  expect(opened()).toEqual([]);
});

test("a sign-in that ends while the page is open closes the thread", async () => {
  wasSignedIn();
  await load();
  room.access.clear();
  room.refresh.clear();
  await expect(api.threads()).rejects.toMatchObject({ status: 401 });
  await pass();
  expect(reload).toHaveBeenCalledOnce();
  expect(app.who.value).toBeUndefined();
  expect(FakeSocket.opened.every((one) => one.isClosed)).toBe(true);
});

test("an invitation is taken up after the sign-in, and leads to its thread alone", async () => {
  await load("/#invite=m3i_good");
  expect(app.inviteInAddress.value).toBe("m3i_good");
  expect(paths()).toEqual(["/api/room"]);
  await api.signIn({ name: "ann", password: "good" });
  await pass();
  expect(app.invited.value).toEqual({ accepted: "show" });
  expect(address()).toBe("/?thread=show");
  expect(opened()).toEqual(["/ws/chat/show"]);
});

test("an invitation that is not good any more is told so, and leaves one where one was", async () => {
  wasSignedIn();
  await load("/?thread=news#invite=m3i_bad");
  expect(app.invited.value).toMatchObject({ refused: { status: 404 } });
  expect(address()).toBe("/?thread=news");
  expect(opened()).toEqual(["/ws/chat/news"]);
});

test("where there are several tenants, an invitation tells its own to who signs in", async () => {
  room.hasSeveralTenants = true;
  localStorage.setItem("m3.tenant", '"of who was here before"');
  await load("/#invite=m3i_good&tenant=acme");
  expect(app.likelyTenant()).toBe("acme");
  history.replaceState(null, "", "/#invite=m3i_good");
  expect(app.likelyTenant()).toBe("of who was here before");
  await api.signIn({ name: "ann", password: "good" });
  await pass();
  expect(app.addressOfInvite("m3i_good")).toBe(`${location.origin}/#invite=m3i_good&tenant=${ANN.tenant}`);
  room.hasSeveralTenants = false;
  await load();
  expect(app.addressOfInvite("m3i_good")).toBe(`${location.origin}/#invite=m3i_good`);
});

test("an invitation of another tenant is told so, and stays in the address for who signs in there", async () => {
  wasSignedIn();
  room.hasSeveralTenants = true;
  await load("/#invite=m3i_bad&tenant=acme");
  expect(app.invited.value).toEqual({ elsewhere: "acme" });
  expect(address()).toBe("/#invite=m3i_bad&tenant=acme");
});

test.each([
  ["one's own", "default", true],
  ["none", "", true],
  ["what no tenant can be called", "Your+password,+please:+evil.example", true],
  ["any, where there is one alone", "acme", false],
])("an invitation that is not good any more is told so with the tenant of %s", async (_, tenant, several) => {
  wasSignedIn();
  room.hasSeveralTenants = several;
  await load(`/#invite=m3i_bad&tenant=${tenant}`);
  expect(app.invited.value).toMatchObject({ refused: { status: 404 } });
  expect(address()).toBe("/");
});

test("whoever is invited makes an account with the invitation, and is in its thread", async () => {
  await load("/#invite=m3i_good");
  await expect(app.signUp("m3i_bad", "ann", "good")).rejects.toMatchObject({ status: 404 });
  expect(app.needsSignIn.value).toBe(true);
  await app.signUp("m3i_good", "ann", "good");
  await pass();
  expect(paths()).not.toContain("/api/invites");
  expect(app.invited.value).toEqual({ accepted: "show" });
  expect(app.inviteInAddress.value).toBeNull();
  expect(isKept()).toBe(true);
  expect(app.who.value).toEqual(ANN);
  expect(address()).toBe("/?thread=show");
  expect(opened()).toEqual(["/ws/chat/show"]);
});

test("an invitation that is followed where nobody is signed in is there to sign in for, and an empty one is none", async () => {
  await load("/#invite=");
  expect(app.inviteInAddress.value).toBeNull();
  history.replaceState(null, "", "/#invite=m3i_good");
  dispatchEvent(new Event("hashchange"));
  await pass();
  expect(app.inviteInAddress.value).toBe("m3i_good");
  expect(paths()).toEqual(["/api/room"]);
});

test("an invitation to the thread that is open opens it anew, which may have been refused before", async () => {
  wasSignedIn();
  await load("/?thread=show");
  const before = app.conversation.value;
  history.replaceState(null, "", "/?thread=show#invite=m3i_good");
  dispatchEvent(new Event("hashchange"));
  await pass();
  expect(app.conversation.value?.threadId).toBe("show");
  expect(app.conversation.value).not.toBe(before);
});

test("an invitation that is followed in an open page is taken up there", async () => {
  wasSignedIn();
  await load();
  history.replaceState(null, "", "/#invite=m3i_good");
  dispatchEvent(new Event("hashchange"));
  await pass();
  expect(app.conversation.value?.threadId).toBe("show");
});

test("an invitation is still in the address where the sign-in turns out to be over", async () => {
  wasSignedIn();
  await load();
  room.access.clear();
  room.refresh.clear();
  history.replaceState(null, "", "/#invite=m3i_good");
  dispatchEvent(new Event("hashchange"));
  await pass();
  expect(reload).toHaveBeenCalledOnce();
  expect(address()).toBe("/#invite=m3i_good");
});

test("an invitation waits for a room that is away", async () => {
  wasSignedIn();
  await load();
  room.isAway = true;
  history.replaceState(null, "", "/#invite=m3i_good");
  dispatchEvent(new Event("hashchange"));
  await pass();
  expect(app.trouble.value?.status).toBe(0);
  room.isAway = false;
  await pass(2_000);
  expect(app.trouble.value).toBeUndefined();
  expect(app.invited.value).toEqual({ accepted: "show" });
});

test.each([false, true])("whoever signs out is forgotten here, with the room away: %s", async (isAway) => {
  wasSignedIn();
  await load();
  room.isAway = isAway;
  await api.signOut().catch(() => undefined);
  await pass();
  expect(paths()).toContain("/api/logout");
  expect(isKept()).toBe(false);
  expect(app.who.value).toBeUndefined();
  expect(app.conversation.value).toBeUndefined();
  expect(FakeSocket.opened.every((one) => one.isClosed)).toBe(true);
  expect(app.isEnding.value).toBe(true);
  expect(reload).toHaveBeenCalledTimes(isAway ? 0 : 1);
  room.isAway = false;
  await pass(2_000);
  expect(reload).toHaveBeenCalledOnce();
});

test("a page that is to be loaded anew does nothing for who signs in elsewhere meanwhile", async () => {
  wasSignedIn();
  await load();
  room.isBusy = true;
  await api.signOut().catch(() => undefined);
  await pass();
  room.isBusy = false;
  room.asked = [];
  room.access.add("access 7");
  wasSignedIn(7);
  dispatchEvent(new StorageEvent("storage", { key: "m3.sign-in" }));
  await pass(5_000);
  expect(paths()).toEqual([]);
  expect(app.who.value).toBeUndefined();
  await pass(30_000);
  expect(reload).toHaveBeenCalled();
});

test("whoever signs out, or in as another, in another page of the browser does so here", async () => {
  wasSignedIn();
  await load();
  wasSignedIn(7);
  dispatchEvent(new StorageEvent("storage", { key: "m3.sign-in" }));
  expect(app.who.value).toBeUndefined();
  await pass();
  expect(reload).toHaveBeenCalledOnce();
  localStorage.removeItem("m3.sign-in");
  dispatchEvent(new StorageEvent("storage", { key: "m3.sign-in" }));
  await pass();
  expect(reload).toHaveBeenCalledTimes(2);
});

test("a room that is away at first is come into once it is there", async () => {
  wasSignedIn();
  room.isAway = true;
  await load();
  expect(app.room.value).toBeUndefined();
  expect(app.trouble.value?.passes).toBe(true);
  room.isAway = false;
  await pass(2_000);
  expect(app.trouble.value).toBeUndefined();
  expect(app.who.value).toEqual(ANN);
});

test("a room that names a time is asked again when it has passed", async () => {
  room.isBusy = true;
  await load();
  await pass(29_000);
  expect(paths()).toEqual(["/api/room"]);
  room.isBusy = false;
  await pass(1_000);
  expect(app.needsSignIn.value).toBe(true);
});

test("whoever signs in tells of which tenant", async () => {
  await load();
  await api.signIn({ tenant: "acme", name: "ann", password: "good" });
  expect(room.asked.find(({ path }) => path === "/api/login")?.body).toMatchObject({ tenant: "acme" });
});

test("a room that asks nobody is come into under a name of one's own, and takes no invitation", async () => {
  room.auth = "open";
  await load("/#invite=m3i_good");
  expect(app.place.value).toBe("open");
  expect(app.name.value).toMatch(/^\S/);
  expect(paths()).not.toContain("/api/invites");
  const [socket] = FakeSocket.opened;
  expect(new URL(socket?.url ?? "").searchParams.get("client")).toBe(app.name.value);
});

test("going to another thread and back opens each, and closes the one before", async () => {
  wasSignedIn();
  await load();
  app.openThread("show");
  await pass();
  expect(address()).toBe("/?thread=show");
  history.replaceState(null, "", "/");
  dispatchEvent(new Event("popstate"));
  await pass();
  expect(opened()).toEqual(["/ws/chat/default", "/ws/chat/show", "/ws/chat/default"]);
  expect(FakeSocket.opened.map((one) => one.isClosed)).toEqual([true, true, false]);
});
