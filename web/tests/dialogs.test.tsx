// @vitest-environment jsdom
import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { dialog, isEnding, role, room, threadId, toast, who } from "../src/app";
import { language } from "../src/preferences";
import type { Conversation } from "../src/thread/conversation";
import { listed } from "../src/threads";
import { Dialogs } from "../src/views/dialogs/Dialogs";
import { Pause } from "../src/views/Pause";

interface Asked {
  readonly method: string;
  readonly path: string;
  readonly body: unknown;
  readonly headers: Record<string, string>;
  answer: (body: unknown, status?: number) => Promise<void>;
}

const place = document.body;
let asked: Asked[] = [];

/** Whatever is to be done after an answer is done. */
const settle = () => act(() => new Promise((resolve) => setTimeout(resolve)));

beforeEach(() => {
  asked = [];
  vi.stubGlobal(
    "fetch",
    (path: string, { method, body, headers }: { method: string; body?: string; headers: Record<string, string> }) =>
      new Promise((resolve) =>
        asked.push({
          method,
          path,
          body: body === undefined ? undefined : JSON.parse(body),
          headers,
          answer(answer, status = 200) {
            resolve(new Response(status === 204 ? null : JSON.stringify(answer), { status }));
            return settle();
          },
        }),
      ),
  );
  HTMLDialogElement.prototype.showModal = () => undefined;
  HTMLDialogElement.prototype.close = () => undefined;
  language.value = "en";
  room.value = {
    auth: "required",
    demo: true,
    sign_up: false,
    several_tenants: false,
    message_limit: 16_384,
    version: "1",
  };
  who.value = { kind: "person", tenant: "default", name: "ann" };
  role.value = "owner";
  threadId.value = "one";
});

afterEach(() => {
  act(() => render(null, place));
  dialog.value = undefined;
  toast.value = undefined;
  isEnding.value = false;
  vi.useRealTimers();
  vi.restoreAllMocks();
});

function open(name: NonNullable<typeof dialog.value>): Promise<void> {
  dialog.value = name;
  act(() => render(<Dialogs goTo={() => undefined} />, place));
  return settle();
}

/** The newest that the room was asked. */
function last(method: string, path: string): Asked {
  const found = asked.findLast((one) => one.method === method && one.path.startsWith(path));
  if (!found) throw new Error(`${method} ${path} is not among ${asked.map((one) => `${one.method} ${one.path}`)}`);
  return found;
}

const find = <T extends Element>(selector: string): T => {
  const found = place.querySelector<T>(selector);
  if (!found) throw new Error(`no ${selector} in ${place.innerHTML}`);
  return found;
};
const button = (text: string): HTMLButtonElement =>
  [...place.querySelectorAll("button")].find((one) => one.textContent === text) ?? find(`button:contains(${text})`);
const type = (field: HTMLInputElement | HTMLTextAreaElement, text: string) =>
  act(() => {
    field.value = text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  });
const choose = (field: HTMLSelectElement, value: string) =>
  act(() => {
    field.value = value;
    field.dispatchEvent(new Event("change", { bubbles: true }));
  });
const enter = (field: HTMLElement, init: KeyboardEventInit = {}) =>
  act(() => {
    field.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true, ...init }));
  });
const press = (element: HTMLElement) => act(() => element.click());

const SETTINGS = {
  system_prompt: null,
  user_policy: null,
  api_policy: null,
  pause: null,
  api_ttl: null,
  api_cap: null,
  batch_messages: null,
  merge_window: null,
};
const MEMBERS = { members: [{ name: "ann", kind: "person", role: "owner" }] };

test("settings are saved in the thread that they are of, though another was gone to meanwhile", async () => {
  await open("settings");
  await last("GET", "/api/threads/one/settings").answer({ settings: { ...SETTINGS, system_prompt: "of one" } });
  type(find("textarea"), "changed in one");
  await act(() => {
    threadId.value = "two"; // as the browser's Back does
  });
  await settle();
  await last("GET", "/api/threads/two/settings").answer({ settings: { ...SETTINGS, system_prompt: "of two" } });
  expect(find<HTMLTextAreaElement>("textarea").value).toBe("of two");
  press(button("Save"));
  await settle();
  expect(last("PUT", "/api/threads/").path).toBe("/api/threads/two/settings");
  expect(last("PUT", "/api/threads/").body).toMatchObject({ system_prompt: "of two" });
});

test("what is saved late closes no window of another thread", async () => {
  await open("settings");
  await last("GET", "/api/threads/one/settings").answer({ settings: SETTINGS });
  press(button("Save"));
  await settle();
  const saving = last("PUT", "/api/threads/one/settings");
  await act(() => {
    threadId.value = "two";
  });
  await saving.answer(undefined, 204);
  expect(dialog.value).toBe("settings");
});

test("a name stays in its field when nobody of that name can be admitted", async () => {
  await open("members");
  await last("GET", "/api/threads/one/members").answer(MEMBERS);
  type(find('form[aria-label="Add somebody"] input'), "bob");
  press(button("Add"));
  await settle();
  await last("PUT", "/api/threads/one/members").answer({ code: "not_found", message: "Not Found." }, 404);
  await last("GET", "/api/threads/one/members").answer(MEMBERS);
  expect(find('[role="alert"]').textContent).toBe("There is nobody of that name.");
  expect(find<HTMLInputElement>('form[aria-label="Add somebody"] input').value).toBe("bob");
  press(button("Add"));
  await settle();
  await last("PUT", "/api/threads/one/members").answer(undefined, 204);
  await last("GET", "/api/threads/one/members").answer(MEMBERS);
  expect(find<HTMLInputElement>('form[aria-label="Add somebody"] input').value).toBe("");
});

test("a role changes once that is saved, and what ownership is about is told before", async () => {
  await open("members");
  const bob = { name: "bob", kind: "person", role: "member" };
  await last("GET", "/api/threads/one/members").answer({ members: [...MEMBERS.members, bob] });
  const field = find<HTMLSelectElement>('select[aria-label="Role: bob"]');
  const told = () => place.querySelector('[role="alert"]')?.textContent;
  choose(field, "reader");
  expect(told()).toBeUndefined();
  choose(field, "owner");
  expect(told()).toBe("An owner may change everything here, and remove other owners.");
  choose(field, "member");
  expect(place.querySelector('button[aria-label^="Save: "]')).toBeNull();
  choose(find('select[aria-label="Role: ann"]'), "reader");
  expect(told()).toBe("You would not be an owner any more.");
  choose(find('select[aria-label="Role: ann"]'), "owner");
  choose(field, "owner");
  await settle();
  expect(asked.filter((one) => one.method === "PUT")).toEqual([]);
  press(find('button[aria-label="Save: bob: owner"]'));
  expect(document.activeElement).toBe(field);
  await settle();
  expect(last("PUT", "/api/threads/one/members/bob").body).toEqual({ role: "owner" });
  await last("PUT", "/api/threads/one/members/bob").answer({ ...bob, role: "owner" });
  await last("GET", "/api/threads/one/members").answer({ members: [...MEMBERS.members, { ...bob, role: "owner" }] });
  expect(field.value).toBe("owner");
  expect(place.querySelector('button[aria-label^="Save: "]')).toBeNull();
  expect(find(".good").textContent).toBe("Saved");
  choose(field, "reader");
  expect(find(".good").textContent).toBe("");
});

/** Of the only owner, that she is a member. */
async function openAndSaveARoleThatIsRefused(): Promise<void> {
  await open("members");
  await last("GET", "/api/threads/one/members").answer(MEMBERS);
  choose(find('select[aria-label="Role: ann"]'), "member");
  press(find('button[aria-label="Save: ann: member"]'));
  await settle();
  await last("PUT", "/api/threads/one/members/ann").answer({ code: "last_owner", message: "No." }, 409);
}

test("a role that the room refuses is still to be saved, and why is told", async () => {
  await openAndSaveARoleThatIsRefused();
  await last("GET", "/api/threads/one/members").answer(MEMBERS);
  expect(find(".error").textContent).toBe("A thread must keep an owner.");
  expect(find('button[aria-label="Save: ann: member"]')).toBeTruthy();
});

test("a role lets nobody in again whom another owner removed meanwhile", async () => {
  await open("members");
  const bob = { name: "bob", kind: "person", role: "member" };
  await last("GET", "/api/threads/one/members").answer({ members: [...MEMBERS.members, bob] });
  choose(find('select[aria-label="Role: bob"]'), "reader");
  press(find('button[aria-label="Save: bob: reader"]'));
  await settle();
  const saving = last("PUT", "/api/threads/one/members/bob");
  expect(saving.headers).toMatchObject({ "If-Match": "*" });
  await saving.answer({ code: "no_member", message: "There is no member of that name (any more)." }, 412);
  await last("GET", "/api/threads/one/members").answer(MEMBERS);
  expect(find(".error").textContent).toBe("That person is no member any more.");
  expect(place.querySelector('select[aria-label="Role: bob"]')).toBeNull();
  type(find('form[aria-label="Add somebody"] input'), "bob");
  press(button("Add"));
  await settle();
  expect(last("PUT", "/api/threads/one/members/bob").headers).not.toHaveProperty("If-Match");
});

test("what another owner took away a moment before is away, and no matter", async () => {
  const bob = { name: "bob", kind: "person", role: "member" };
  const invite = { prefix: "abcdefgh", role: "member", made_by: "ann", expires_at: "2026-11-27T00:00:00Z" };
  await open("members");
  await last("GET", "/api/threads/one/members").answer({ members: [...MEMBERS.members, bob] });
  await last("GET", "/api/threads/one/invites").answer({ invites: [invite] });
  press(find('button[aria-label="Remove bob"]'));
  press(find('button[aria-label^="Remove bob"]'));
  await settle();
  await last("DELETE", "/api/threads/one/members/bob").answer({ code: "not_found", message: "Not Found." }, 404);
  await last("GET", "/api/threads/one/members").answer(MEMBERS);
  expect(place.querySelector('button[aria-label="Remove bob"]')).toBeNull();
  press(find('button[aria-label="Take back: abcdefgh"]'));
  press(find('button[aria-label^="Take back: abcdefgh"]'));
  await settle();
  await last("DELETE", "/api/threads/one/invites/abcdefgh").answer({ code: "not_found", message: "Not Found." }, 404);
  await last("GET", "/api/threads/one/invites").answer({ invites: [] });
  expect(place.querySelector('button[aria-label="Take back: abcdefgh"]')).toBeNull();
  expect(place.querySelector(".error")).toBeNull();
});

test("what is pressed again before it is done is done once", async () => {
  await open("members");
  await last("GET", "/api/threads/one/invites").answer({ invites: [] });
  for (let pressed = 0; pressed < 3; pressed++) {
    press(button("Make a link"));
    await settle();
  }
  const made = () => asked.filter((one) => one.method === "POST");
  expect(made()).toHaveLength(1);
  expect(button("Make a link").disabled).toBe(false);
  await last("POST", "/api/threads/one/invites").answer({ code: "too_many_invites", message: "No." }, 409);
  press(button("Make a link"));
  await settle();
  expect(made()).toHaveLength(2);
});

test("owners see whose each link is, as far as the room knows it", async () => {
  const invite = { prefix: "abcdefgh", role: "member", made_by: "ann", expires_at: new Date().toISOString() };
  await open("members");
  await last("GET", "/api/threads/one/invites").answer({
    invites: [invite, { ...invite, prefix: "b", made_by: null }],
  });
  const told = [...place.querySelectorAll("section li small")].map((one) => one.textContent);
  expect(told).toEqual(["until Today, made by ann", "until Today"]);
});

test("why a role was refused is told though the members cannot be looked at then", async () => {
  await openAndSaveARoleThatIsRefused();
  expect(asked.filter((one) => one.path === "/api/threads/one/members")).toHaveLength(2);
  await last("GET", "/api/threads/one/members").answer({ code: "database_unavailable", message: "Away." }, 503);
  expect(find(".error").textContent).toBe("A thread must keep an owner.");
});

test("who finds a thread changes once that is saved", async () => {
  listed.value = [{ threadId: "one", visibility: "private", role: "owner", lastAt: 0, unread: 0 }];
  await open("members");
  const radio = find<HTMLInputElement>('input[type="radio"][value="open"]');
  press(radio);
  await settle();
  expect(asked.filter((one) => one.method === "PUT")).toEqual([]);
  expect(radio.checked).toBe(true);
  press(button("Save"));
  await settle();
  expect(last("PUT", "/api/threads/one").body).toEqual({ visibility: "open" });
  await last("PUT", "/api/threads/one").answer(undefined, 204);
  await last("GET", "/api/threads").answer({ threads: [] });
  const told = () => [...place.querySelectorAll(".good")].map((one) => one.textContent).join("");
  expect(told()).toBe("Saved");
  press(find('input[type="radio"][value="private"]'));
  expect(told()).toBe("");
});

/** What a search found. */
const said = (...contents: string[]) => ({
  messages: contents.map((content) => ({
    message_id: content,
    seq: 1,
    source: "user",
    content,
    author: "ann",
    timestamp: "2026-01-01T00:00Z",
  })),
});

test("a window opens at once, and not a frame later", () => {
  const shows = vi.spyOn(HTMLDialogElement.prototype, "showModal");
  dialog.value = "preferences";
  render(<Dialogs goTo={() => undefined} />, place);
  expect(shows).toHaveBeenCalledOnce();
});

test("what was found before the agent went on does not pause it again", async () => {
  vi.spyOn(document, "visibilityState", "get").mockReturnValue("visible");
  act(() => render(<Pause conversation={{ threadId: "one" } as Conversation} />, place));
  await settle();
  const path = "/api/threads/one/settings";
  const paused = { settings: { ...SETTINGS, pause: "wait" } };
  const lookAgain = () => {
    dialog.value = "preferences";
    dialog.value = undefined;
    return settle();
  };
  await last("GET", path).answer(paused);
  await lookAgain();
  const looked = last("GET", path);
  press(button("Go on"));
  await settle();
  await last("GET", path).answer(paused);
  await last("PUT", path).answer(undefined, 204);
  expect(place.querySelector(".paused")).toBeNull();
  await looked.answer(paused);
  expect(place.querySelector(".paused")).toBeNull();
  await lookAgain();
  await last("GET", path).answer(paused);
  expect(find(".paused").textContent).toContain("Go on");
});

test("the window has the keyboard where what had it is gone", async () => {
  await open("search");
  type(find("input"), "word");
  enter(find("input"));
  await settle();
  await last("GET", "/api/threads/one/search").answer(
    said(...Array.from({ length: 50 }, (_, place) => `word ${place}`)),
  );
  button("Find older ones").focus();
  press(button("Find older ones"));
  await settle();
  await last("GET", "/api/threads/one/search").answer(said("the oldest word"));
  await settle();
  expect(find(".results").textContent).toContain("the oldest word");
  expect(document.activeElement).toBe(find('button[aria-label="Close"]'));
});

test("of several searches the newest is shown, however late the others end", async () => {
  await open("search");
  const field = find<HTMLInputElement>("input");
  type(field, "first");
  enter(field, { keyCode: 229 });
  await settle();
  expect(asked).toEqual([]);
  enter(field);
  await settle();
  const first = last("GET", "/api/threads/one/search?q=first");
  type(field, "second");
  enter(field);
  await settle();
  await first.answer({ code: "took_too_long", message: "Too long." }, 503);
  expect(find('[role="status"]').textContent).toBe("Searching…");
  await last("GET", "/api/threads/one/search?q=second").answer(said("second found"));
  expect(find(".results").textContent).toContain("second found");
  expect(place.querySelector('[role="alert"]')).toBeNull();
});

test("Enter searches at once, and once", async () => {
  await open("search");
  vi.useFakeTimers();
  type(find("input"), "word");
  enter(find("input"));
  await act(async () => {
    await vi.advanceTimersByTimeAsync(1_000);
  });
  expect(asked.map((one) => one.path.split("?")[1]?.split("&")[0])).toEqual(["q=word"]);
});

/** Whatever is drawn anew is, and no frame is over since. */
const drawn = () => Promise.resolve();

test("Enter at once after a letter searches once", async () => {
  await open("search");
  vi.useFakeTimers();
  const field = find<HTMLInputElement>("input");
  field.value = "word";
  field.dispatchEvent(new Event("input", { bubbles: true }));
  await drawn();
  field.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
  await vi.advanceTimersByTimeAsync(2_000);
  expect(asked).toHaveLength(1);
});

test("what is saved late closes no other window, however soon that was opened", async () => {
  await open("settings");
  await last("GET", "/api/threads/one/settings").answer({ settings: SETTINGS });
  press(button("Save"));
  await settle();
  dialog.value = undefined;
  await drawn();
  dialog.value = "search";
  await drawn();
  await last("PUT", "/api/threads/one/settings").answer(undefined, 204);
  expect(dialog.value).toBe("search");
});

test("whoever signs out leaves nothing of what they typed", async () => {
  localStorage.setItem("m3.draft/default.ann/one", JSON.stringify({ text: "half a thou", at: 1 }));
  await open("preferences");
  press(button("Sign out"));
  expect(isEnding.value).toBe(true);
  await settle();
  expect(last("POST", "/api/logout")).toBeTruthy();
  expect(localStorage.getItem("m3.draft/default.ann/one")).toBeNull();
});
