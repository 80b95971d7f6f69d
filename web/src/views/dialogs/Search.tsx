import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { search } from "../../api";
import { closeDialog, threadId } from "../../app";
import type { HistoryMessage } from "../../wire";
import { clock, day, moment, words } from "../../words";
import { Avatar } from "../Avatar";
import { Button } from "../Button";
import { isComposing } from "../composing";
import { Dialog } from "../Dialog";
import { Refusal, useAttempt } from "../Refusal";
import { snippet } from "./snippet";

/** Messages that are found at once. */
const PAGE = 50;
/** Milliseconds after the last letter until it is searched for. */
const PAUSE = 300;
/** Longest that the room searches for, in characters. */
const LONGEST = 256;

interface Found {
  readonly query: string;
  readonly messages: readonly HistoryMessage[];
  readonly more: boolean;
}

export function Search({ goTo }: { goTo: (messageId: string) => void }) {
  const [typed, setTyped] = useState("");
  const [found, setFound] = useState<Found | undefined>(undefined);
  const { isBusy, problem, attempt } = useAttempt();
  const soon = useRef<ReturnType<typeof setTimeout>>(undefined);

  async function find(query: string, earlier: readonly HistoryMessage[] = []): Promise<void> {
    let all: Found | undefined;
    const counts = await attempt(async () => {
      if (query === "") return;
      const before = earlier.at(-1)?.seq;
      const page = await search(threadId.value, query, { limit: PAGE, ...(before !== undefined && { before }) });
      all = { query, messages: [...earlier, ...page], more: page.length === PAGE };
    });
    if (counts) setFound(all);
  }

  // before the next key, which may be Enter
  useLayoutEffect(() => {
    soon.current = setTimeout(() => void find(typed.trim()), PAUSE);
    return () => clearTimeout(soon.current);
  }, [typed]);

  return (
    <Dialog title={words.value.search} close={closeDialog}>
      <search>
        <input
          type="text" // one of the type search takes Escape for itself
          inputMode="search"
          enterKeyHint="search"
          autocomplete="off"
          aria-label={words.value.searchHint}
          placeholder={words.value.searchHint}
          maxLength={LONGEST}
          autofocus
          value={typed}
          onInput={(event) => setTyped(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key !== "Enter" || event.repeat || isComposing(event)) return;
            clearTimeout(soon.current);
            void find(typed.trim());
          }}
        />
      </search>
      <Refusal of={problem} />
      <p class="hint" role="status">
        {statusOf(found, isBusy)}
      </p>
      {found && found.messages.length > 0 && (
        <ul class="plain results">
          {found.messages.map((message) => (
            <li key={message.message_id}>
              <Result
                message={message}
                query={found.query}
                choose={() => {
                  closeDialog();
                  goTo(message.message_id);
                }}
              />
            </li>
          ))}
        </ul>
      )}
      {found?.more && (
        <div class="actions">
          <Button isBusy={isBusy} onClick={() => void find(found.query, found.messages)}>
            {words.value.findOlder}
          </Button>
        </div>
      )}
    </Dialog>
  );
}

function statusOf(found: Found | undefined, isBusy: boolean): string {
  if (isBusy) return words.value.searching;
  if (!found) return "";
  return found.messages.length ? words.value.found(found.messages.length, found.more) : words.value.nothingFound;
}

function Result(props: { message: HistoryMessage; query: string; choose: () => void }) {
  const { source, author, content, timestamp } = props.message;
  const name = author ?? (source === "assistant" ? words.value.lane.assistant : words.value.somebody);
  const at = Date.parse(timestamp);
  return (
    <button type="button" class="result" onClick={props.choose}>
      <Avatar lane={source} name={name} />
      <span>
        <span class="said-by">
          <strong>{name}</strong>
          {source === "api" && <span class="hint">{words.value.lane.api}</span>}
          <time dateTime={timestamp} title={moment.value(at)}>
            {day.value(at)} {clock.value(at)}
          </time>
        </span>
        <span class="snippet">
          {snippet(content, props.query).map(({ text, isMarked }, place) =>
            isMarked ? <mark key={place}>{text}</mark> : text,
          )}
        </span>
      </span>
    </button>
  );
}
