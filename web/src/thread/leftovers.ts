/** What was said in threads that are not open any more and waits still: said for them, one thread after the other. */
import type { Conversation } from "./conversation";
import { threadsWaiting } from "./outbox";

/** Milliseconds that a thread may take for it. */
const TIMEOUT = 20_000;

/** `who`: whose outboxes; `open`: the thread that sees to its own; `begin` gives a conversation of a thread. Ends early once
 * that is not `wanted` any more. */
export async function sayLeftovers(
  who: string,
  open: string,
  begin: (thread: string) => Conversation,
  wanted: AbortSignal,
): Promise<void> {
  for (const thread of threadsWaiting(who)) {
    if (thread === open) continue;
    if (wanted.aborted) return;
    const conversation = begin(thread);
    void conversation.start();
    await emptied(conversation, wanted);
    conversation.stop();
  }
}

/** Resolves once nothing waits in it, or it will not be taken. */
function emptied({ outbox, problem }: Conversation, wanted: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const ends = [outbox.items.subscribe(look), problem.subscribe(look)];
    const late = setTimeout(end, TIMEOUT);
    wanted.addEventListener("abort", end);
    function look(): void {
      if (outbox.isEmpty || problem.value) queueMicrotask(end); // subscribing calls it at once
    }
    function end(): void {
      for (const unsubscribe of ends) unsubscribe();
      clearTimeout(late);
      wanted.removeEventListener("abort", end);
      resolve();
    }
  });
}
