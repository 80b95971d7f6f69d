import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Conversation } from "../thread/conversation";
import { placeOf } from "../thread/timeline";
import { words } from "../words";

/** The page's title: which thread it is, and how much was said in it while nobody looked. */
export function Title({ conversation }: { conversation: Conversation }) {
  const { version, timeline, threadId } = conversation;
  const seenUpTo = useSignal<number | undefined>(undefined);
  useEffect(() => {
    const looked = () => {
      seenUpTo.value = document.visibilityState === "visible" ? undefined : (timeline.messages.at(-1)?.seq ?? 0);
    };
    document.addEventListener("visibilitychange", looked);
    return () => document.removeEventListener("visibilitychange", looked);
  }, [timeline]);
  const seen = seenUpTo.value;
  const unseen =
    version.value && seen !== undefined ? timeline.messages.length - placeOf(timeline.messages, seen + 1) : 0;
  useEffect(() => {
    document.title = `${unseen ? `(${unseen}) ` : ""}${threadId} · ${words.value.room}`;
  }, [unseen, threadId, words.value]);
  return null;
}
