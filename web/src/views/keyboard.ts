/** Who has the keyboard where what had it goes away. */

export const COMPOSER = "composer";

/** Milliseconds in which Enter is one more press of the button that went away, and not for what was typed before. */
const SECOND_PRESS = 500;
let handedOver = Number.NEGATIVE_INFINITY;

/** Let what is typed go into the composer. */
export function typeOn(): void {
  document.getElementById(COMPOSER)?.focus();
  handedOver = performance.now();
}

export const isForWhatWentAway = (key: KeyboardEvent): boolean =>
  key.repeat || key.timeStamp - handedOver < SECOND_PRESS;

/** What was typed since is meant for the composer, and so is Enter. */
export function isTyped(): void {
  handedOver = Number.NEGATIVE_INFINITY;
}

/** A key that is held down presses once: where the keyboard was handed on meanwhile, the next press would be of something
 * else. In several lines it goes on making lines. */
export function pressOnce(): void {
  addEventListener("keydown", (event) => {
    const isHeld = event.repeat && event.key === "Enter";
    if (isHeld && !(event.target instanceof HTMLTextAreaElement)) event.preventDefault();
  });
}

/** Be at the button that shows the threads, where they are hidden: on a phone. */
export const toThreadsButton = (): void => document.querySelector<HTMLElement>(".bar .only-narrow")?.focus();

/** Nothing was pointed at. */
export const isByKey = (press: MouseEvent): boolean => press.detail === 0;
