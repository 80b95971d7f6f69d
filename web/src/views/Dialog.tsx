import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import { words } from "../words";
import { Icon } from "./Icon";

/** A window over the page, for as long as it is shown: the browser keeps the keyboard in it, and Escape closes it. */
export function Dialog(props: { title: string; close: () => void; children: ComponentChildren }) {
  const element = useRef<HTMLDialogElement>(null);
  const title = useId();
  useEffect(() => element.current?.showModal(), []);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: by keyboard it is Escape, which the browser sees to
    <dialog
      ref={element}
      aria-labelledby={title}
      onClose={props.close}
      onClick={(event) => {
        if (event.target === element.current) element.current?.close(); // beside it
      }}
    >
      <div class="window">
        <header>
          <h2 id={title}>{props.title}</h2>
          <button type="button" class="icon" aria-label={words.value.close} onClick={() => element.current?.close()}>
            <Icon name="close" />
          </button>
        </header>
        {props.children}
      </div>
    </dialog>
  );
}
