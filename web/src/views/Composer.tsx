import { useSignal } from "@preact/signals";
import { useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { maySpeak, room, toast } from "../app";
import { showLane } from "../preferences";
import type { Conversation } from "../thread/conversation";
import { words } from "../words";
import { Button } from "./Button";
import { isComposing } from "./composing";
import { openDraft, writeDraft } from "./draft";
import { Icon } from "./Icon";
import { COMPOSER, isForWhatWentAway, isTyped } from "./keyboard";

/** The part of the longest message from which on its length is told. */
const TELLING = 0.8;
/** Bytes that a message may have while the room has not said. */
const USUAL_LIMIT = 16_384;

const encoder = new TextEncoder();

export function Composer({ conversation }: { conversation: Conversation }) {
  const field = useRef<HTMLTextAreaElement>(null);
  const isFull = useSignal(false);
  const text = useMemo(() => openDraft(conversation.threadId), [conversation]).value;
  const limit = room.value?.message_limit ?? USUAL_LIMIT;
  // A character has three bytes at most for each of its UTF-16 units, so short ones need not be counted.
  const bytes = text.length * 3 < limit * TELLING ? 0 : encoder.encode(text.trim()).length;
  const canSend = text.trim() !== "" && bytes <= limit;

  useLayoutEffect(() => {
    const element = field.current;
    if (!element) return;
    element.style.height = "auto";
    element.style.height = `${element.scrollHeight + 2}px`;
  }, [text]);
  // before the next frame, so that what is typed at once is in it; a window that opens with the thread takes it from here
  useLayoutEffect(() => {
    if (matchMedia("(pointer: fine)").matches) field.current?.focus();
  }, [conversation]);

  if (!maySpeak.value) return <p class="composer read-only">{words.value.readOnly}</p>;

  const send = (): void => {
    if (!canSend) return;
    isFull.value = conversation.outbox.isFull;
    if (isFull.value) return;
    showLane("user");
    const isKept = conversation.say(text.trim());
    if (!isKept && conversation.state.value !== "open") toast.value = words.value.notKept;
    writeDraft(conversation.threadId, "");
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
        field.current?.focus();
      }}
    >
      <div class="field">
        <textarea
          ref={field}
          id={COMPOSER}
          rows={1}
          dir="auto"
          value={text}
          aria-label={words.value.composer}
          aria-describedby="composer-keys"
          placeholder={words.value.composerHint(conversation.threadId)}
          enterkeyhint="send"
          onInput={(event) => {
            isTyped();
            writeDraft(conversation.threadId, event.currentTarget.value);
            conversation.type(event.currentTarget.value !== "");
          }}
          onBlur={() => conversation.type(false)}
          onKeyDown={(event) => {
            if (event.key !== "Enter" || event.shiftKey || event.altKey || isComposing(event)) return;
            event.preventDefault();
            if (!isForWhatWentAway(event)) send();
          }}
        />
        <Stop conversation={conversation} />
        <button
          type="submit"
          class="icon primary"
          aria-label={words.value.send}
          title={words.value.send}
          disabled={!canSend}
        >
          <Icon name="send" />
        </button>
      </div>
      <p class="hint">
        <span id="composer-keys">{words.value.composerKeys}</span>
        {isFull.value && <b role="alert">{words.value.tooMuchWaits}</b>}
        {bytes > limit * TELLING && (
          <b class={bytes > limit ? "over" : ""} role="status">
            {words.value.tooLong(bytes, limit)}
          </b>
        )}
      </p>
    </form>
  );
}

function Stop({ conversation }: { conversation: Conversation }) {
  conversation.version.value;
  const { turn } = conversation;
  if (turn === undefined) return null;
  const stopping = conversation.stopping.value === turn;
  return (
    <Button class="stop" isBusy={stopping} aria-label={words.value.stopAgent} onClick={() => conversation.cancel()}>
      <Icon name="stop" />
      {stopping ? words.value.stopping : words.value.stop}
    </Button>
  );
}
