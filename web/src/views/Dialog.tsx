import type { ComponentChildren } from "preact";
import { useId, useLayoutEffect, useRef } from "preact/hooks";
import { words } from "../words";
import { Icon } from "./Icon";
import { toThreadsButton } from "./keyboard";

/** A window over the page, for as long as it is shown: the keyboard stays in it, and Escape closes it. */
export function Dialog(props: { title: string; close: () => void; children: ComponentChildren }) {
  const element = useRef<HTMLDialogElement>(null);
  const isPressedBeside = useRef(false);
  const title = useId();
  const { close } = props;
  // before the next frame, so that what is pressed at once is pressed in it
  useLayoutEffect(() => {
    const shown = element.current;
    if (!shown) return;
    const before = document.activeElement;
    shown.addEventListener("close", close);
    shown.showModal();
    const keyboard = new MutationObserver(() => {
      // what had it is gone
      if (document.activeElement === document.body) shown.querySelector("button")?.focus({ preventScroll: true });
    });
    keyboard.observe(shown, { childList: true, subtree: true });
    return () => {
      keyboard.disconnect();
      shown.removeEventListener("close", close); // it tells so late, when another may be open already
      shown.close(); // while it is open nothing behind it can have the keyboard
      if (before instanceof HTMLElement) before.focus({ preventScroll: true }); // which had the keyboard
      const isBack = before !== document.body && document.activeElement === before;
      if (!isBack || before?.closest(".side")) toThreadsButton(); // it is gone, or hidden with the list of threads
    };
  }, [close]);
  const isBeside = (event: MouseEvent) => event.target === element.current;
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: by key it is closed with Escape
    <dialog
      ref={element}
      aria-labelledby={title}
      onPointerDown={(event) => {
        isPressedBeside.current = isBeside(event);
      }}
      onPointerUp={(event) => {
        if (!isBeside(event)) isPressedBeside.current = false;
      }}
      onClick={(event) => {
        // who selects text may end beside it; and a touch ends only here, after which nothing behind it is pressed
        if (isPressedBeside.current && isBeside(event)) close();
      }}
    >
      <div class="window">
        <header>
          <h2 id={title}>{props.title}</h2>
          <button type="button" class="icon" aria-label={words.value.close} onClick={close}>
            <Icon name="close" />
          </button>
        </header>
        {props.children}
      </div>
    </dialog>
  );
}
