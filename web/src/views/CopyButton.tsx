import { useEffect, useState } from "preact/hooks";
import { words } from "../words";
import { copy } from "./copying";
import { Icon } from "./Icon";

/** Milliseconds for which it says whether it did. */
const SHOWN = 2_500;

export function CopyButton(props: { content: string; text?: string }) {
  /** Whether it worked, for a while. */
  const [isCopied, setCopied] = useState<boolean | undefined>(undefined);
  useEffect(() => {
    if (isCopied === undefined) return;
    const timer = setTimeout(() => setCopied(undefined), SHOWN);
    return () => clearTimeout(timer);
  }, [isCopied]);
  const { copied, notCopied } = words.value;
  return (
    <>
      <button type="button" onClick={() => void copy(props.content).then(setCopied)}>
        <Icon name={isCopied ? "check" : isCopied === false ? "warning" : "copy"} />
        {isCopied ? copied : isCopied === false ? notCopied : (props.text ?? words.value.copy)}
      </button>
      <span class="seldom" role="status">
        {isCopied ? copied : isCopied === false ? notCopied : ""}
      </span>
    </>
  );
}
