import { useState } from "preact/hooks";
import { words } from "../../words";

/** For what is not easily taken back: it asks, and does it when it is pressed once more. */
export function SureButton(props: { text: string; label?: string; disabled?: boolean; act: () => void }) {
  const [asks, setAsks] = useState(false);
  return (
    <button
      type="button"
      class="danger"
      aria-label={asks ? `${props.label ?? props.text} – ${words.value.sure}` : (props.label ?? props.text)}
      disabled={props.disabled ?? false}
      onBlur={() => setAsks(false)}
      onClick={() => {
        if (asks) props.act();
        setAsks(!asks);
      }}
    >
      {asks ? words.value.sure : props.text}
    </button>
  );
}
