import { useState } from "preact/hooks";
import { words } from "../../words";
import { Button } from "../Button";

/** For what is not easily taken back: it asks, and does it when it is pressed once more. */
export function SureButton(props: { text: string; label?: string; isBusy: boolean; act: () => void }) {
  const [asks, setAsks] = useState(false);
  return (
    <Button
      class="danger"
      aria-label={asks ? `${props.label ?? props.text} – ${words.value.sure}` : (props.label ?? props.text)}
      isBusy={props.isBusy}
      onBlur={() => setAsks(false)}
      onClick={() => {
        if (asks) props.act();
        setAsks(!asks);
      }}
    >
      {asks ? words.value.sure : props.text}
    </Button>
  );
}
