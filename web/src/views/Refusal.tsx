import { useState } from "preact/hooks";
import { asProblem, type Problem } from "../api";
import { words } from "../words";

/** Why something did not work, as a sentence in the reader's own language where the page has it. */
export function sentenceOf({ status, code, message, retryAfter }: Problem): string {
  if (status === 0) return words.value.unreachable;
  if (status === 429 && retryAfter !== undefined) return words.value.tooOften(retryAfter);
  const known: Partial<Record<string, string>> = words.value.refusals;
  return known[code] ?? `${words.value.wentWrong} ${message}`;
}

export function Refusal({ of }: { of: Problem | string | undefined }) {
  if (of === undefined) return null;
  return (
    <p class="error" role="alert">
      {typeof of === "string" ? of : sentenceOf(of)}
    </p>
  );
}

/** Something that the room is asked for by whoever sits here: whether it is under way, and why it did not work. */
export function useAttempt() {
  const [isBusy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | undefined>(undefined);
  const attempt = async (work: () => Promise<unknown>): Promise<void> => {
    setBusy(true);
    setProblem(undefined);
    try {
      await work();
    } catch (error) {
      setProblem(asProblem(error));
    } finally {
      setBusy(false);
    }
  };
  return { isBusy, problem, attempt };
}
