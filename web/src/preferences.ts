/** How somebody likes the page, kept in this browser. */
import { effect, type Signal, signal } from "@preact/signals";
import { keep, kept } from "./storage";
import { LANES, type Lane } from "./wire";

function preference<T>(name: string, otherwise: T, is: (value: unknown) => value is T): Signal<T> {
  const preferred = signal(kept(name, is) ?? otherwise);
  let first = true;
  effect(() => {
    const value = preferred.value;
    if (!first) keep(name, value);
    first = false;
  });
  return preferred;
}

const oneOf =
  <T>(...values: readonly T[]) =>
  (value: unknown): value is T =>
    values.includes(value as T);
const isLanes = (value: unknown): value is Lane[] =>
  Array.isArray(value) && value.length > 0 && value.every(oneOf(...LANES));
/** Longest name, in characters. */
export const LONGEST_NAME = 32;
/** What is not printed or turns the direction of writing, without the joiners that some writing needs. */
const UNPRINTED = /(?!\u200c|\u200d)[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/u;
/** Something beside marks, spaces, joiners and fillers. */
const SEEN = /(?!\u200c|\u200d|\u115f|\u1160|\u3164|\uffa0|\u2800)[^\p{M}\p{Z}]/u;
/** Who gives no name, to the room. */
const NOBODYS = "anyone";
/** Whether the room takes it for a name, as m3/events.py has it: a socket of any other is refused for ever. */
export const isName = (value: unknown): value is string =>
  typeof value === "string" &&
  value.length <= LONGEST_NAME &&
  SEEN.test(value) &&
  !UNPRINTED.test(value) &&
  value !== NOBODYS;

export type Language = "en" | "zh-CN";
/** The browser's first language of ours. */
const spoken = navigator.languages.map((tag) => tag.toLowerCase()).find((tag) => /^(zh|en)\b/.test(tag));
export const language = preference<Language>(
  "language",
  spoken?.startsWith("zh") ? "zh-CN" : "en",
  oneOf<Language>("en", "zh-CN"),
);

/** `system`: as the system has it. */
export type Theme = "system" | "light" | "dark";
export const THEMES: readonly Theme[] = ["system", "light", "dark"];
export const theme = preference<Theme>("theme", "system", oneOf(...THEMES));

/** One stream of all, or the lanes side by side. */
export type View = "stream" | "lanes";
export const view = preference<View>("view", "stream", oneOf<View>("stream", "lanes"));

/** The lanes that are shown. */
export const shownLanes = preference<readonly Lane[]>("lanes", LANES, isLanes);

/** Something of the lane is to be seen now. */
export function showLane(lane: Lane): void {
  const shown = shownLanes.value;
  if (!shown.includes(lane)) shownLanes.value = LANES.filter((one) => one === lane || shown.includes(one));
}

/** What somebody calls themselves, where the room asks nobody. */
export const ownName = preference<string | null>("name", null, isName);

effect(() => {
  document.documentElement.lang = language.value;
});
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
const dark = signal(systemIsDark.matches);
systemIsDark.addEventListener("change", ({ matches }) => {
  dark.value = matches;
});
effect(() => {
  const shown = theme.value === "system" ? (dark.value ? "dark" : "light") : theme.value;
  document.documentElement.dataset.theme = shown;
});
