import { useEffect, useState } from "preact/hooks";
import { words } from "../words";
import { copy } from "./copying";
import { Icon } from "./Icon";

/** Milliseconds for which it says that it did. */
const SHOWN = 2_500;

export function CopyButton(props: { content: string; text?: string }) {
  const [isCopied, setCopied] = useState(false);
  useEffect(() => {
    if (!isCopied) return;
    const timer = setTimeout(() => setCopied(false), SHOWN);
    return () => clearTimeout(timer);
  }, [isCopied]);
  return (
    <>
      <button type="button" onClick={() => void copy(props.content).then(() => setCopied(true))}>
        <Icon name={isCopied ? "check" : "copy"} />
        {isCopied ? words.value.copied : (props.text ?? words.value.copy)}
      </button>
      <span class="seldom" role="status">
        {isCopied && words.value.copied}
      </span>
    </>
  );
}
