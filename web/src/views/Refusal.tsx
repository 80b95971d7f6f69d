import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { asProblem, type Problem } from "../api";
import { sentenceOf } from "../words";

/** Why something did not work: a problem, or what says it, in the language that is chosen by then. */
export type Why = Problem | (() => string);

export function Refusal({ of }: { of: Why | undefined }) {
  if (of === undefined) return null;
  return (
    <p class="error" role="alert" ref={show}>
      {typeof of === "function" ? of() : sentenceOf(of)}
    </p>
  );
}

/** What is told is seen. */
export const show = (told: HTMLElement | null): void => told?.scrollIntoView({ block: "nearest" });

/** Something that the room is asked for by whoever sits here: whether it is under way, and why it did not work. Where it
 * is asked again meanwhile, only what is newest counts, and nothing once its asker is not shown any more. */
export function useAttempt() {
  const [isBusy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | undefined>(undefined);
  const newest = useRef<unknown>(undefined);
  useLayoutEffect(
    // at once: what is answered before the next frame does not count either
    () => () => {
      newest.current = undefined;
    },
    [],
  );
  /** Tells whether it worked, and still counts. */
  const attempt = async (work: () => Promise<unknown>): Promise<boolean> => {
    newest.current = work;
    setBusy(true);
    setProblem(undefined);
    const failed = await work().then(
      () => undefined,
      (error: unknown) => asProblem(error),
    );
    if (newest.current !== work) return false;
    setBusy(false);
    setProblem(failed);
    return failed === undefined;
  };
  return { isBusy, problem, attempt };
}
