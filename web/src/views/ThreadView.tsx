import { useEffect } from "preact/hooks";
import { DEFAULT_THREAD, dialog, openThread, room, toast, who } from "../app";
import { playing, playLivestream, stopLivestream } from "../livestream";
import { shownLanes, view } from "../preferences";
import type { Conversation } from "../thread/conversation";
import { LANES, type Lane } from "../wire";
import { sentenceOf, words } from "../words";
import { Button } from "./Button";
import { Composer } from "./Composer";
import { Header, TITLE } from "./Header";
import { Icon } from "./Icon";
import { Mark } from "./Mark";
import { Pause } from "./Pause";
import { SkipLink } from "./SkipLink";
import { Stream } from "./Stream";

/** Each alone, so that the array is the same each time. */
const ALONE: Record<Lane, readonly Lane[]> = { user: ["user"], api: ["api"], assistant: ["assistant"] };

export function ThreadView({ conversation, showThreads }: { conversation: Conversation; showThreads: () => void }) {
  const problem = conversation.problem.value;
  useEffect(() => {
    const notice = conversation.notice.value;
    if (notice) toast.value = sentenceOf(notice);
  }, [conversation.notice.value]);
  useEffect(() => stopLivestream, [conversation]);
  return (
    <main class="thread">
      <Header conversation={conversation} showThreads={showThreads} />
      {problem ? (
        <section class="empty">
          <h2>{problem === "no longer allowed" ? words.value.notAllowed : words.value.notThere}</h2>
          {conversation.threadId !== DEFAULT_THREAD && (
            <button type="button" class="primary" onClick={() => openThread(DEFAULT_THREAD)}>
              {words.value.toDefault}
            </button>
          )}
        </section>
      ) : (
        <>
          <Messages conversation={conversation} />
          <footer>
            <SkipLink to={TITLE} text={words.value.skipBack} />
            <Pause conversation={conversation} />
            <Typing conversation={conversation} />
            {conversation.state.value === "waiting" && (
              <p class="offline" role="status">
                <Icon name="warning" />
                {words.value.offlineHint}
              </p>
            )}
            <Composer conversation={conversation} />
            <Demo conversation={conversation} />
          </footer>
        </>
      )}
    </main>
  );
}

function Messages({ conversation }: { conversation: Conversation }) {
  conversation.version.value;
  const { timeline, outbox } = conversation;
  if (!conversation.isLoaded.value && !outbox.items.value.length) {
    return (
      <section class="empty" role="status">
        <p class="hint">{words.value.loading}</p>
      </section>
    );
  }
  const lanes = shownLanes.value;
  if (!timeline.messages.length && !timeline.growing.length && !outbox.items.value.length) {
    return <Empty conversation={conversation} />;
  }
  if (view.value === "stream")
    return (
      <>
        <h2 class="seldom">{words.value.messages}</h2>
        <Stream key={lanes.join()} conversation={conversation} lanes={lanes} label={words.value.messages} />
      </>
    );
  return (
    <div class="side-by-side">
      {LANES.filter((lane) => lanes.includes(lane)).map((lane) => (
        <section key={lane} class={`lane ${lane}`} aria-label={words.value.lanes[lane]}>
          <h2>{words.value.lanes[lane]}</h2>
          <Stream conversation={conversation} lanes={ALONE[lane]} label={words.value.lanes[lane]} />
        </section>
      ))}
    </div>
  );
}

function Empty({ conversation }: { conversation: Conversation }) {
  const { empty, emptyHint, tryStory } = words.value;
  return (
    <section class="empty">
      <Mark />
      <h2>{empty}</h2>
      <p class="hint">{emptyHint}</p>
      <div class="row">
        <Button onClick={() => conversation.say(tryStory)}>{tryStory}</Button>
        <LivestreamButton threadId={conversation.threadId} />
      </div>
    </section>
  );
}

function Typing({ conversation }: { conversation: Conversation }) {
  const typing = conversation.typing.value;
  return (
    <p class="typing" aria-live="polite">
      {typing.length > 0 && (
        <>
          <span class="dots" aria-hidden="true">
            <i />
            <i />
            <i />
          </span>
          {words.value.typing(typing)}
        </>
      )}
    </p>
  );
}

/** Where no real model is connected: that this is so, what to do about it, and something to look at; elsewhere only what
 * stops that once it plays. */
function Demo({ conversation }: { conversation: Conversation }) {
  conversation.version.value;
  const livestream = <LivestreamButton threadId={conversation.threadId} />;
  if (!room.value?.demo) return playing.value !== undefined && <p class="demo">{livestream}</p>;
  return (
    <p class="demo">
      <Icon name="agent" />
      <span>{words.value.demoNote}</span>
      <button
        type="button"
        class="link"
        onClick={() => {
          dialog.value = "demo";
        }}
      >
        {words.value.demoHow}
      </button>
      {conversation.timeline.messages.length > 0 && livestream}
    </p>
  );
}

/** Only in an open room: where people sign in they are no programs. */
function LivestreamButton({ threadId }: { threadId: string }) {
  if (who.value?.kind !== "anyone") return null;
  const left = playing.value;
  return left === undefined ? (
    <Button title={words.value.playStreamHint} onClick={() => playLivestream(threadId)}>
      <Icon name="play" />
      {words.value.playStream}
    </Button>
  ) : (
    <Button aria-label={words.value.stopStream} onClick={(event) => event.detail < 2 && stopLivestream()}>
      <Icon name="stop" />
      {words.value.streamPlays(left)}
    </Button>
  );
}
