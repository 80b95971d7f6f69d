import { firstOf } from "../cutting";
import type { Lane } from "../wire";
import { Icon } from "./Icon";

/** Hues that people are told apart by (styles/thread.css has them). */
const HUES = 8;

/** People are round and have their letter, programs are square, the agent has its own. */
export function Avatar({ lane, name }: { lane: Lane; name: string }) {
  if (lane === "user") {
    return (
      <span class={`avatar user hue-${hueOf(name)}`} aria-hidden="true">
        {firstOf(name.trim())?.toLocaleUpperCase()}
      </span>
    );
  }
  return (
    <span class={`avatar ${lane}`} aria-hidden="true">
      <Icon name={lane === "api" ? "program" : "agent"} />
    </span>
  );
}

function hueOf(name: string): number {
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + (letter.codePointAt(0) ?? 0)) % 65_521;
  return sum % HUES;
}
