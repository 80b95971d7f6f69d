import type { ThreadSettings } from "../../wire";

export interface Bounds {
  readonly least: number;
  readonly most: number;
  readonly isWhole: boolean;
}

/** Seconds of a day. */
const DAY = 86_400;

/** What a thread's numbers may be, as m3/threads.py has it. */
export const BOUNDS = {
  api_ttl: { least: 0.001, most: DAY, isWhole: false },
  api_cap: { least: 1, most: 1_000, isWhole: true },
  batch_messages: { least: 1, most: 1_000, isWhole: true },
  merge_window: { least: 0, most: DAY, isWhole: false },
} satisfies Partial<Record<keyof ThreadSettings, Bounds>>;

/** Longest system prompt of a thread, in characters. */
export const LONGEST_PROMPT = 16 * 1024;

/** The number that was typed: null where nothing was, undefined where it is none that is allowed. */
export function numberIn(typed: string, { least, most, isWhole }: Bounds): number | null | undefined {
  const text = typed.trim();
  if (text === "") return null;
  const number = Number(text);
  const isGood = number >= least && number <= most && (!isWhole || Number.isInteger(number));
  return isGood && /^\d*\.?\d+$/.test(text) ? number : undefined;
}
