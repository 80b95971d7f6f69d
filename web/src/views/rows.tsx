import { useSignal } from "@preact/signals";
import { memo } from "preact/compat";
import { useMemo } from "preact/hooks";
import { Problem } from "../api";
import { maySpeak } from "../app";
import { goTo } from "../goal";
import { rendered } from "../markdown";
import { language } from "../preferences";
import type { Conversation } from "../thread/conversation";
import type { Unsent } from "../thread/outbox";
import type { Growing, Said } from "../thread/timeline";
import type { Lane } from "../wire";
import { clock, day, moment, sentenceOf, words } from "../words";
import { Avatar } from "./Avatar";
import { draftOf, writeDraft } from "./draft";
import { Icon } from "./Icon";
import { isByKey, typeOn } from "./keyboard";
import { shortly } from "./shortly";

/** Characters past which what a person or a program says is folded. */
const LONG = 1_200;
/** Characters of a message that another shows of it. */
const SNIPPET = 80;
/** Messages that a reply lists of those that it answers. */
const LISTED = 50;

export const nameOf = (lane: Lane, author: string | undefined): string =>
  author ?? (lane === "user" ? words.value.somebody : words.value.lane[lane]);

interface SaidProps {
  said: Said;
  conversation: Conversation;
  own: boolean;
  /** It goes on with what is above, by the same sender. */
  follows: boolean;
  newDay: boolean;
  /** What there is to say where nothing is above. */
  beginning: string | undefined;
  /** So many messages from this one on were said while the page was away. */
  missed: number;
  marked: boolean;
  /** Its place among those that are held, from 0. */
  place: number;
}

export const SaidRow = memo((props: SaidProps) => {
  const { said, own, follows, newDay, beginning, missed, marked } = props;
  const starts = !follows || newDay || missed > 0;
  const kind = `said ${said.lane}${own ? " own" : ""}${starts ? " starts" : ""}${marked ? " marked" : ""}`;
  return (
    <>
      {beginning && <p class="beginning">{beginning}</p>}
      {newDay && <Divider>{day.value(said.at)}</Divider>}
      {missed > 0 && <Divider kind="missed">{words.value.missed(missed)}</Divider>}
      <article
        class={kind}
        id={`m-${said.messageId}`}
        tabIndex={-1}
        aria-labelledby={`n-${said.messageId}`}
        aria-posinset={props.place + 1}
        aria-setsize={-1} // nobody knows how long a thread becomes
      >
        {starts ? <Avatar lane={said.lane} name={nameOf(said.lane, said.author)} /> : <span class="avatar" />}
        <div class="body">
          <header class={starts ? "" : "seldom"} id={`n-${said.messageId}`}>
            <b>{own ? words.value.you : nameOf(said.lane, said.author)}</b>
            {said.author && !own && <span class="tag">{words.value.lane[said.lane]}</span>}
            <time dateTime={new Date(said.at).toISOString()} title={moment.value(said.at)}>
              {clock.value(said.at)}
            </time>
          </header>
          {said.inReplyTo.length > 0 && <Answered ids={said.inReplyTo} conversation={props.conversation} />}
          {said.sealed ? <p class="content hint">{words.value.sealedMessage}</p> : <Content said={said} />}
          <FateLine said={said} conversation={props.conversation} />
        </div>
      </article>
    </>
  );
});

export const GrowingRow = memo(({ growing, conversation }: { growing: Growing; conversation: Conversation }) => {
  const { thinking, torn, lane } = words.value;
  const html = useMemo(() => rendered(growing.text), [growing.text, language.value]);
  return (
    <article class="said assistant starts growing" aria-busy="true" aria-label={lane.assistant}>
      <Avatar lane="assistant" name={lane.assistant} />
      <div class="body">
        <header>
          <b>{lane.assistant}</b>
        </header>
        {growing.inReplyTo.length > 0 && <Answered ids={growing.inReplyTo} conversation={conversation} />}
        {growing.torn && <p class="hint">… {torn}</p>}
        {growing.text ? (
          <div class="content markdown" dangerouslySetInnerHTML={{ __html: html }} />
        ) : (
          <p class="content thinking">
            <span class="dots" aria-hidden="true">
              <i />
              <i />
              <i />
            </span>
            {thinking}
          </p>
        )}
      </div>
    </article>
  );
});

export const UnsentRow = memo(({ unsent, conversation }: { unsent: Unsent; conversation: Conversation }) => {
  const { you, told, refused, sending, unsent: waiting, editAgain, discard } = words.value;
  const remove = () => conversation.outbox.remove(unsent.key);
  const isOpen = conversation.state.value === "open";
  return (
    <article class="said user own starts unsent" aria-label={you}>
      <Avatar lane="user" name={you} />
      <div class="body">
        <header>
          <b>{you}</b>
          <time>{clock.value(unsent.at)}</time>
        </header>
        <div class="content plain" dir="auto">
          {unsent.content}
        </div>
        {unsent.refused === undefined ? (
          <p class="fate">
            <Icon name="clock" />
            {isOpen ? sending : waiting}
          </p>
        ) : (
          <p class="fate failed" role="alert">
            <Icon name="warning" />
            {told(refused, sentenceOf(new Problem(422, unsent.refused.code, unsent.refused.message)))}
            {maySpeak.value && (
              <button
                type="button"
                class="link"
                onClick={() => {
                  const { threadId } = conversation;
                  writeDraft(threadId, [unsent.content, draftOf(threadId).value].filter(Boolean).join("\n"));
                  remove();
                  typeOn();
                }}
              >
                {editAgain}
              </button>
            )}
            <button
              type="button"
              class="link"
              onClick={(press) => {
                if (isByKey(press)) typeOn();
                remove();
              }}
            >
              {discard}
            </button>
          </p>
        )}
      </div>
    </article>
  );
});

function Divider(props: { kind?: string; children: string }) {
  return (
    <p class={`divider ${props.kind ?? ""}`}>
      <span>{props.children}</span>
    </p>
  );
}

/** People and the agent write Markdown; of programs there is much, and it is shown as it came. */
function Content({ said }: { said: Said }) {
  const isLong = said.lane !== "assistant" && said.content.length > LONG;
  const folded = useSignal(isLong);
  const html = useMemo(
    () => (said.lane === "api" ? undefined : rendered(said.content)),
    [said.content, said.lane, language.value],
  );
  const kind = `content${folded.value ? " folded" : ""}`;
  return (
    <>
      {html === undefined ? (
        <div class={`${kind} plain`} dir="auto">
          {said.content}
        </div>
      ) : (
        <div class={`${kind} markdown`} dangerouslySetInnerHTML={{ __html: html }} />
      )}
      {isLong && (
        <button
          type="button"
          class="link fold"
          aria-expanded={!folded.value}
          onClick={() => {
            folded.value = !folded.value;
          }}
        >
          {folded.value ? words.value.showAll : words.value.showLess}
        </button>
      )}
    </>
  );
}

/** What a reply answers: the one message, or how many, to be opened. Each leads to it. */
function Answered({ ids, conversation }: { ids: readonly string[]; conversation: Conversation }) {
  const [first] = ids;
  if (ids.length === 1 && first) {
    return (
      <p class="answers">
        <Icon name="reply" />
        <JumpTo id={first} conversation={conversation} />
      </p>
    );
  }
  return (
    <details class="answers">
      <summary>
        <Icon name="reply" />
        {words.value.answers(ids.length)}
      </summary>
      <ul class="plain">
        {ids.slice(0, LISTED).map((id) => (
          <li key={id}>
            <JumpTo id={id} conversation={conversation} />
          </li>
        ))}
        {ids.length > LISTED && <li class="hint">+ {ids.length - LISTED}</li>}
      </ul>
    </details>
  );
}

function JumpTo({ id, conversation }: { id: string; conversation: Conversation }) {
  const answered = conversation.timeline.find(id);
  const name = answered && (conversation.isOwn(answered) ? words.value.you : nameOf(answered.lane, answered.author));
  const { content, lane } = answered ?? {};
  const snippet = useMemo(() => answered && shortly(answered, SNIPPET), [content, lane, language.value]);
  const what = answered ? words.value.told(name ?? "", snippet ?? "") : words.value.elsewhere;
  return (
    <button
      type="button"
      class={`link jump ${lane ?? ""}`}
      aria-label={words.value.jumpTo(what)}
      onClick={() => void goTo(id)}
    >
      {answered ? (
        <>
          <b>{name}</b> {snippet}
        </>
      ) : (
        what
      )}
    </button>
  );
}

/** What became of it, said quietly; loudly only where it failed. */
function FateLine({ said, conversation }: { said: Said; conversation: Conversation }) {
  const { fates, told, retry, stopped, jumpToReply } = words.value;
  if (said.lane === "assistant") return said.cancelled ? <p class="fate">{stopped}</p> : null;
  const { fate, replyId } = said;
  if (!fate) return null;
  if (fate === "answered" || fate === "merged") {
    if (!replyId) return null;
    return (
      <p class="fate done">
        <button type="button" class="link" title={jumpToReply} onClick={() => void goTo(replyId)}>
          <Icon name="check" />
          <span>{fates[fate]}</span>
        </button>
      </p>
    );
  }
  const mayRetry = (fate === "failed" || fate === "cancelled") && maySpeak.value;
  return (
    <p class={`fate ${fate}`}>
      <Icon name={fate === "pending" ? "clock" : fate === "failed" ? "warning" : "stop"} />
      <span>{fate === "failed" && said.reason ? told(fates.failed, said.reason) : fates[fate]}</span>
      {mayRetry && (
        <button
          type="button"
          class="link"
          onClick={(press) => {
            if (isByKey(press)) typeOn();
            void conversation.retry(said.messageId);
          }}
        >
          {retry}
        </button>
      )}
    </p>
  );
}
