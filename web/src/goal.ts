/** The message that somebody asked to be taken to. */
import { signal } from "@preact/signals";
import { conversation, toast } from "./app";
import { showLane } from "./preferences";
import { words } from "./words";

/** Milliseconds for which it is marked. */
const MARKED = 2_500;

/** Each goal is an object of its own: somebody may ask twice for the same. */
export const goal = signal<{ readonly messageId: string } | undefined>(undefined);
let marked: ReturnType<typeof setTimeout> | undefined;

/** Have the message shown, marked, and read to whoever listens. */
export async function goTo(messageId: string): Promise<void> {
  const said = await conversation.value?.reach(messageId);
  if (!said) {
    toast.value = words.value.notReached;
    return;
  }
  showLane(said.lane);
  clearTimeout(marked);
  goal.value = { messageId };
  marked = setTimeout(() => {
    goal.value = undefined;
  }, MARKED);
}
