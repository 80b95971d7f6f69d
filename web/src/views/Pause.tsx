import { effect, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { asProblem, changeSettings, settings } from "../api";
import { dialog, mayConfigure, toast } from "../app";
import type { Conversation } from "../thread/conversation";
import type { ThreadSettings } from "../wire";
import { sentenceOf, words } from "../words";
import { Button } from "./Button";
import { Icon } from "./Icon";

/** Milliseconds between looks, since nobody tells when somebody else changes it. */
const INTERVAL = 20_000;

/** Says that the agent is paused, where it is, and lets it go on. */
export function Pause({ conversation }: { conversation: Conversation }) {
  const { threadId } = conversation;
  const known = useSignal<ThreadSettings | undefined>(undefined);
  /** The last look, until the settings are changed here; what any other look finds may no longer be so. */
  const newest = useRef<Promise<ThreadSettings> | undefined>(undefined);
  useEffect(() => {
    const look = () => {
      if (document.visibilityState === "visible") {
        const asked = settings(threadId);
        newest.current = asked;
        asked.then(
          (found) => {
            if (newest.current === asked) known.value = found;
          },
          () => undefined, // as it was known
        );
      }
    };
    const again = setInterval(look, INTERVAL);
    const whenClosed = effect(() => {
      if (dialog.value === undefined) look(); // which may have changed it
    });
    return () => {
      clearInterval(again);
      whenClosed();
    };
  }, [threadId]);
  const pause = known.value?.pause;
  if (!pause) return null;
  const resume = async () => {
    try {
      const wanted = { ...(await settings(threadId)), pause: null };
      await changeSettings(threadId, wanted);
      newest.current = undefined;
      known.value = wanted;
    } catch (error) {
      toast.value = sentenceOf(asProblem(error));
    }
  };
  return (
    <p class="paused" role="status">
      <Icon name="pause" />
      {pause === "wait" ? words.value.pausedWait : words.value.pausedIgnore}
      {mayConfigure.value && (
        <Button class="link" onClick={() => void resume()}>
          {words.value.resume}
        </Button>
      )}
    </p>
  );
}
