import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Conversation } from "../thread/conversation";
import { placeOf } from "../thread/timeline";
import { words } from "../words";
import { nameOf } from "./rows";
import { shortly } from "./shortly";

/** Milliseconds in which new messages gather, so that a flood is told of as one sentence. */
const GATHERING = 1_500;
/** Messages that are read out one by one, and characters of each. */
const READ = 2;
const CHARACTERS = 400;

/** Reads new messages to whoever listens to the page. The list itself cannot: rows come into it by scrolling too. */
export function Announcer({ conversation }: { conversation: Conversation }) {
  const told = useSignal({ sentence: "", time: 0 });
  const upTo = useRef<number | undefined>(undefined);
  const version = conversation.version.value;
  useEffect(() => {
    if (!conversation.isLoaded.value) return;
    if (upTo.current === undefined) {
      upTo.current = conversation.timeline.last;
      return;
    }
    const { messages } = conversation.timeline;
    if ((messages.at(-1)?.seq ?? 0) <= upTo.current || pending.current) return;
    pending.current = setTimeout(() => {
      pending.current = undefined;
      const all = conversation.timeline.messages;
      const fresh = all.slice(placeOf(all, (upTo.current ?? 0) + 1)).filter((one) => !conversation.isOwn(one));
      upTo.current = all.at(-1)?.seq ?? upTo.current;
      if (!fresh.length) return;
      const sentence =
        fresh.length <= READ
          ? fresh.map((one) => words.value.told(nameOf(one.lane, one.author), shortly(one, CHARACTERS))).join("\n")
          : words.value.newMessages(fresh.length);
      told.value = { sentence, time: Date.now() };
    }, GATHERING);
  }, [conversation, version]);
  const pending = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  useEffect(() => () => clearTimeout(pending.current), []);
  return (
    <div class="seldom" aria-live="polite">
      <p key={told.value.time}>{told.value.sentence}</p>
    </div>
  );
}
