/** What the page says, in the language that is chosen. */
import { computed } from "@preact/signals";
import type { Problem } from "../api";
import { language } from "../preferences";
import { en, type Words } from "./en";
import { zh } from "./zh";

export const words = computed<Words>(() => (language.value === "zh-CN" ? zh : en));

/** `14:05`, in the reader's own zone. */
export const clock = computed(() => {
  const format = new Intl.DateTimeFormat(language.value, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  return (at: number) => format.format(at);
});

/** The whole of it, to the second. */
export const moment = computed(() => {
  const format = new Intl.DateTimeFormat(language.value, { dateStyle: "full", timeStyle: "medium" });
  return (at: number) => format.format(at);
});

export const day = computed(() => {
  const thisYear = new Intl.DateTimeFormat(language.value, { weekday: "long", month: "long", day: "numeric" });
  const another = new Intl.DateTimeFormat(language.value, { year: "numeric", month: "long", day: "numeric" });
  return (at: number) => {
    const days = Math.round((midnight(Date.now()) - midnight(at)) / 86_400_000);
    if (days === 0) return words.value.today;
    if (days === 1) return words.value.yesterday;
    const year = new Date(at).getFullYear();
    return (year === new Date().getFullYear() ? thisYear : another).format(at);
  };
});

/** As shortly as it can be said: the time of today, or the day. */
export const briefly = computed(() => {
  const thisYear = new Intl.DateTimeFormat(language.value, { month: "short", day: "numeric" });
  const another = new Intl.DateTimeFormat(language.value, { year: "numeric", month: "numeric", day: "numeric" });
  return (at: number) => {
    const today = midnight(Date.now());
    if (at >= today) return clock.value(at);
    if (midnight(at) === midnight(today - 1)) return words.value.yesterday;
    return (new Date(at).getFullYear() === new Date().getFullYear() ? thisYear : another).format(at);
  };
});

/** When the day began that the time is of, in the reader's own zone. */
export const midnight = (at: number): number => new Date(at).setHours(0, 0, 0, 0);

/** Why something did not work, as a sentence in the reader's own language where the page has it. */
export function sentenceOf({ status, code, message, retryAfter }: Problem): string {
  if (status === 0) return words.value.unreachable;
  if (status === 429 && retryAfter !== undefined) return words.value.tooOften(retryAfter);
  const known: Partial<Record<string, string>> = words.value.refusals;
  return known[code] ?? `${words.value.wentWrong} ${message}`;
}
