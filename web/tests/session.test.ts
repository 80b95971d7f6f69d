// @vitest-environment jsdom
import { effect } from "@preact/signals";
import { beforeEach, expect, test, vi } from "vitest";
import { accessToken, forgetSignIn, isSignedIn, signedInWith } from "../src/session";

const asked = vi.fn<(path: string, request: RequestInit) => Promise<Response>>();

const tokens = (name: string, seconds = 600) => ({
  access_token: `access ${name}`,
  refresh_token: `refresh ${name}`,
  expires_in: seconds,
});

/** The room gives these out for any refresh token. */
const givesOut = (name: string) => asked.mockImplementation(async () => Response.json(tokens(name)));

beforeEach(() => {
  vi.stubGlobal("fetch", asked);
  asked.mockReset();
  asked.mockRejectedValue(new TypeError("nobody answers"));
  forgetSignIn();
});

test("nobody is signed in at first, and nobody is asked", async () => {
  expect(isSignedIn.value).toBe(false);
  expect(await accessToken()).toBeUndefined();
  expect(asked).not.toHaveBeenCalled();
});

test("a token that is good is used without asking", async () => {
  signedInWith(tokens("first"));
  expect(isSignedIn.value).toBe(true);
  expect(await accessToken()).toBe("access first");
  expect(asked).not.toHaveBeenCalled();
});

test("a token that is about to end is renewed, once for all who want one", async () => {
  signedInWith(tokens("first", 0));
  givesOut("second");
  expect(await Promise.all([accessToken(), accessToken(), accessToken()])).toEqual(Array(3).fill("access second"));
  expect(asked).toHaveBeenCalledOnce();
  expect(asked.mock.calls[0]?.[1].body).toBe('{"refresh_token":"refresh first"}');
  expect(await accessToken()).toBe("access second");
});

test("what asked for a token is not begun anew when that is renewed", async () => {
  signedInWith(tokens("first"));
  const begun = vi.fn(() => void accessToken());
  const end = effect(begun);
  givesOut("second");
  await accessToken("access first");
  expect(begun).toHaveBeenCalledOnce();
  end();
});

test("a token that the room refused is renewed, though it seemed good", async () => {
  signedInWith(tokens("first"));
  givesOut("second");
  expect(await accessToken("access first")).toBe("access second");
});

test("what another page has renewed meanwhile is used, for a refresh token is good once", async () => {
  signedInWith(tokens("first"));
  const elsewhere = { access: "access other", refresh: "refresh other", renewAt: Date.now() + 60_000 };
  localStorage.setItem("m3.sign-in", JSON.stringify(elsewhere));
  expect(await accessToken("access first")).toBe("access other");
  expect(asked).not.toHaveBeenCalled();
});

test("another page that signs out, or in, does so here", () => {
  signedInWith(tokens("first"));
  localStorage.removeItem("m3.sign-in");
  dispatchEvent(new StorageEvent("storage", { key: "m3.sign-in" }));
  expect(isSignedIn.value).toBe(false);
  localStorage.setItem("m3.sign-in", JSON.stringify({ access: "a", refresh: "r", renewAt: 1 }));
  dispatchEvent(new StorageEvent("storage", { key: "m3.sign-in" }));
  expect(isSignedIn.value).toBe(true);
});

test("a sign-in that the room does not renew is over", async () => {
  signedInWith(tokens("first", 0));
  asked.mockResolvedValue(new Response("{}", { status: 401 }));
  expect(await accessToken()).toBeUndefined();
  expect(isSignedIn.value).toBe(false);
  expect(localStorage.getItem("m3.sign-in")).toBeNull();
});

test.each([429, 500, 503])("a sign-in outlasts a room that answers %i", async (status) => {
  signedInWith(tokens("first", 0));
  asked.mockResolvedValue(new Response("{}", { status }));
  await expect(accessToken()).rejects.toThrow();
  givesOut("second");
  expect(await accessToken()).toBe("access second");
});

test("a sign-in outlasts a room that is away", async () => {
  signedInWith(tokens("first", 0));
  await expect(accessToken()).rejects.toThrow();
  expect(isSignedIn.value).toBe(true);
  givesOut("second");
  expect(await accessToken()).toBe("access second");
});
