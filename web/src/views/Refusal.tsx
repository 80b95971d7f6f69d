import { useEffect, useRef, useState } from "preact/hooks";
import { asProblem, type Problem } from "../api";
import { sentenceOf } from "../words";

export function Refusal({ of }: { of: Problem | string | undefined }) {
  if (of === undefined) return null;
  return (
    <p class="error" role="alert" ref={show}>
      {typeof of === "string" ? of : sentenceOf(of)}
    </p>
  );
}

const show = (refusal: HTMLElement | null): void => refusal?.scrollIntoView({ block: "nearest" });

/** Something that the room is asked for by whoever sits here: whether it is under way, and why it did not work. Where it
 * is asked again meanwhile, only what is newest counts, and nothing once its asker is not shown any more. */
export function useAttempt() {
  const [isBusy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | undefined>(undefined);
  const newest = useRef<unknown>(undefined);
  useEffect(
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
