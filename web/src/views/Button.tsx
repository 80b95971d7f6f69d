import type { ButtonHTMLAttributes } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { typeOn } from "./keyboard";

/** A button that leaves the keyboard to whoever pressed it.
 *
 * While what it began is under way it is pressed in vain, but not disabled: browsers take the keyboard from what is.
 * Where it goes away with its row, the keyboard goes on to the next row or the one before, or to what is left of the
 * section, and from elsewhere in a thread to its composer. Not for what is in a message: such a row goes away by scrolling
 * too, and whoever reads is to stay there.
 */
export function Button({ isBusy = false, onClick, ...rest }: ButtonHTMLAttributes & { isBusy?: boolean }) {
  const element = useRef<HTMLButtonElement>(null);
  useLayoutEffect(
    () => () => {
      const button = element.current;
      if (!button || button !== document.activeElement) return;
      const next = neighbour(button);
      if (next) next.focus();
      else if (button.matches(":focus-visible")) typeOn(); // to a finger it would only show the keys of its screen
    },
    [],
  );
  return (
    <button
      type="button"
      {...rest}
      ref={element}
      aria-disabled={isBusy}
      onClick={(event) => {
        if (isBusy)
          event.preventDefault(); // a form is not sent
        else onClick?.(event);
      }}
    />
  );
}

function neighbour(button: HTMLElement): HTMLElement | undefined {
  const row = button.closest("li");
  return [row?.nextElementSibling, row?.previousElementSibling, row?.closest("section")]
    .flatMap((near) => [...(near?.querySelectorAll<HTMLElement>("button:last-of-type") ?? [])])
    .find((one) => !row?.contains(one));
}
