import { useSignal } from "@preact/signals";
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { Virtualizer, type VirtualizerHandle } from "virtua";
import { goal } from "../goal";
import { type Conversation, type Missed, MOST_HELD } from "../thread/conversation";
import type { Unsent } from "../thread/outbox";
import { type Growing, placeOf, type Said } from "../thread/timeline";
import { sawUpTo } from "../threads";
import type { Lane } from "../wire";
import { midnight, words } from "../words";
import { Icon } from "./Icon";
import { isByKey } from "./keyboard";
import { GrowingRow, SaidRow, UnsentRow } from "./rows";

type Row = Said | Growing | Unsent;

/** Pixels from the end within which whoever reads is at the end, and stays there. */
const AT_END = 60;
/** Pixels from the beginning within which older messages are read. */
const NEAR_START = 1_500;
/** Pages of the history that are read without a reader going there. */
const UNASKED = 3;
/** Milliseconds after a reader's touch in which a scroll is theirs. Others are the page's own, where rows turn out to be of
 * another height than was thought. */
const READERS = 1_000;
/** Keys that scroll up. */
const UPWARDS = new Set(["ArrowUp", "PageUp", "Home"]);
/** Frames in which a row must be drawn that is scrolled to. */
const FOCUS_FRAMES = 60;
/** Milliseconds within which what one says follows upon what one said. */
const TOGETHER = 5 * 60_000;

const isSaid = (row: Row | undefined): row is Said => row !== undefined && "seq" in row;

/** Messages of some lanes in their order, with what is being said at the end. Older ones are read as one goes up; at the
 * end it follows what comes. */
export function Stream(props: { conversation: Conversation; lanes: readonly Lane[]; label: string }) {
  const { conversation, lanes, label } = props;
  const rows = useRows(conversation, lanes);
  const list = useRef<VirtualizerHandle>(null);
  const scroller = useRef<HTMLDivElement>(null);
  const follows = useSignal(true);
  const offset = useRef(0);
  const touched = useRef(Number.NEGATIVE_INFINITY);
  const seenUpTo = useRef(0);
  const below = useSignal(0);
  const isNearStart = useSignal(false);
  /** Pages of the history that were read unasked. */
  const unasked = useRef(0);
  /** What was missed, once somebody went there. */
  const visited = useSignal<Missed | undefined>(undefined);
  const shift = useOtherBeginning(rows);

  /** Not by the list's own scrolling, which goes on for a while where rows are not measured yet, against a reader who leaves. */
  const toEnd = useCallback(() => {
    follows.value = true;
    const element = scroller.current;
    if (element) element.scrollTop = element.scrollHeight;
  }, []);

  const mark = useCallback(() => {
    const { messages } = conversation.timeline;
    if (follows.peek()) {
      seenUpTo.current = messages.at(-1)?.seq ?? 0;
      if (document.visibilityState === "visible") sawUpTo(conversation.threadId, conversation.timeline.last);
    }
    const next = follows.peek() ? messages.length : placeOf(messages, seenUpTo.current + 1);
    isNearStart.value = offset.current < NEAR_START;
    below.value = messages.slice(next).filter((one) => lanes.includes(one.lane)).length;
  }, [conversation, lanes]);

  const isReaders = (): boolean => performance.now() - touched.current < READERS;

  /** Unasked only a little: of a lane in which little is said the whole history may hold less than a screen. */
  const readOlder = (): void => {
    if (offset.current >= NEAR_START || conversation.isLoadingOlder.value) return;
    if (!isReaders() && ++unasked.current > UNASKED) return;
    void conversation.loadOlder();
  };

  const scrolled = (now: number): void => {
    const { scrollSize, viewportSize } = list.current as VirtualizerHandle;
    const isUp = now < offset.current;
    const left = scrollSize - viewportSize - now;
    // Up to the very end it is no reader that goes: rows became lower, or the end bounced back.
    if (left <= (isUp ? 1 : AT_END)) follows.value = true;
    else if (isUp && isReaders()) follows.value = false;
    offset.current = now;
    mark();
    readOlder();
  };

  const touch = (): void => {
    touched.current = performance.now();
    readOlder();
  };

  /** At once: in a flood the end is followed again before the scroll is told of. */
  const leave = (isUp: boolean): void => {
    touch();
    if (isUp && offset.current > 0) follows.value = false;
  };

  useLayoutEffect(() => {
    if (follows.peek()) {
      toEnd();
      conversation.trim();
    }
    mark();
  }, [rows]);
  useEffect(readOlder, [rows]);
  useEffect(() => {
    if (conversation.spoken.value && lanes.includes("user")) toEnd(); // to see what one has said
  }, [conversation.spoken.value]);
  useEffect(() => {
    document.addEventListener("visibilitychange", mark);
    return () => document.removeEventListener("visibilitychange", mark);
  }, [mark]);
  useGoal(rows, list, () => {
    follows.value = false;
  });

  const missed = missedIn(conversation, rows);
  const isMissedAbove =
    missed &&
    visited.value !== conversation.missed.value &&
    missed.place < (list.current?.findItemIndex(offset.current) ?? 0);
  const { timeline } = conversation;
  return (
    <div class="stream">
      <div class="above">
        {conversation.isLoadingOlder.value ? (
          <p role="status">{words.value.loadingOlder}</p>
        ) : isMissedAbove ? (
          <button
            type="button"
            onClick={() => {
              visited.value = conversation.missed.value;
              follows.value = false;
              list.current?.scrollToIndex(missed.place, { align: "start" });
            }}
          >
            <Icon name="up" />
            {words.value.missed(missed.count)}
          </button>
        ) : isNearStart.value && !timeline.reachesStart && timeline.messages.length < MOST_HELD ? (
          <button type="button" onClick={() => void conversation.loadOlder()}>
            <Icon name="up" />
            {words.value.readOlder}
          </button>
        ) : null}
      </div>
      <div
        ref={scroller}
        class="scroller"
        role="feed"
        aria-label={label}
        aria-busy={!conversation.isLoaded.value}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: by keyboard one scrolls only what one can be at
        tabIndex={0}
        onWheel={(event) => leave(event.deltaY < 0)}
        onTouchMove={touch}
        onPointerDown={touch}
        onKeyDown={(event) => leave(UPWARDS.has(event.key))}
        onFocusIn={touch}
      >
        <Virtualizer
          ref={list}
          data={rows}
          shift={shift}
          itemSize={72}
          bufferSize={400}
          onScroll={scrolled}
          onResize={() => follows.peek() && toEnd()}
        >
          {(row, place) => {
            if (!isSaid(row)) {
              if ("turnId" in row) return <GrowingRow key={row.replyId} growing={row} conversation={conversation} />;
              return <UnsentRow key={row.key} unsent={row} conversation={conversation} />;
            }
            const before = rows[place - 1];
            const previous = isSaid(before) ? before : undefined;
            return (
              <SaidRow
                key={row.messageId}
                said={row}
                conversation={conversation}
                own={row.lane === "user" && conversation.isOwn(row)}
                follows={isOneWith(row, previous)}
                newDay={!previous || midnight(previous.at) !== midnight(row.at)}
                beginning={startOf(conversation, place)}
                missed={missed?.place === place ? missed.count : 0}
                place={place}
                marked={goal.value?.messageId === row.messageId}
              />
            );
          }}
        </Virtualizer>
      </div>
      {!rows.length && timeline.reachesStart && lanes.length < 3 && <p class="nothing">{words.value.nothingShown}</p>}
      <button
        type="button"
        class="below"
        hidden={follows.value}
        onClick={(press) => {
          if (isByKey(press)) scroller.current?.focus({ preventScroll: true }); // since the button goes
          toEnd();
        }}
      >
        <Icon name="down" />
        {below.value ? words.value.newBelow(below.value) : words.value.toNewest}
      </button>
    </div>
  );
}

/** The rows of these lanes: another array whenever there is something new in it, and the same as long as not. */
function useRows(conversation: Conversation, lanes: readonly Lane[]): readonly Row[] {
  const version = conversation.version.value;
  const unsent = conversation.outbox.items.value;
  return useMemo(() => {
    const { messages, growing } = conversation.timeline;
    const rows: Row[] = lanes.length === 3 ? [...messages] : messages.filter((one) => lanes.includes(one.lane));
    if (lanes.includes("assistant")) rows.push(...growing);
    if (lanes.includes("user")) rows.push(...unsent.filter((one) => !one.shown));
    return rows;
  }, [conversation, lanes, version, unsent]);
}

/** Whether the list begins with another row than before, with older ones or without some of them: what is seen keeps its
 * distance from the end then. */
function useOtherBeginning(rows: readonly Row[]): boolean {
  const before = useRef<{ rows: readonly Row[]; first: string | undefined }>({ rows: [], first: undefined });
  const first = isSaid(rows[0]) ? rows[0].messageId : undefined;
  const last = before.current;
  const isOther = rows !== last.rows && last.first !== undefined && first !== last.first;
  useLayoutEffect(() => {
    before.current = { rows, first };
  }, [rows]);
  return isOther;
}

/** Scroll to the message that is asked for, if it is one of these. */
function useGoal(rows: readonly Row[], list: { current: VirtualizerHandle | null }, leave: () => void): void {
  const wanted = goal.value;
  useEffect(() => {
    const place = wanted ? rows.findIndex((row) => isSaid(row) && row.messageId === wanted.messageId) : -1;
    if (!wanted || place < 0) return;
    leave();
    list.current?.scrollToIndex(place, { align: "center" });
    return focusOnceDrawn(`m-${wanted.messageId}`);
  }, [wanted]);
}

/** Returns what ends the wait for it. */
function focusOnceDrawn(id: string): () => void {
  let left = FOCUS_FRAMES;
  let frame = 0;
  const look = () => {
    const element = document.getElementById(id);
    element?.focus({ preventScroll: true }); // in vain as long as it is hidden, to be measured
    if (!element?.matches(":focus") && --left) frame = requestAnimationFrame(look);
  };
  look();
  return () => cancelAnimationFrame(frame);
}

function isOneWith(said: Said, previous: Said | undefined): boolean {
  if (previous?.lane !== said.lane || previous.author !== said.author || said.lane === "assistant") return false;
  return said.at - previous.at < TOGETHER && midnight(said.at) === midnight(previous.at);
}

function startOf(conversation: Conversation, place: number): string | undefined {
  if (place > 0) return undefined;
  const { timeline } = conversation;
  if (timeline.reachesStart) return words.value.beginning;
  return timeline.messages.length >= MOST_HELD ? words.value.noMoreHeld : undefined;
}

/** What of these rows was said while the page was away: where it begins, and how much it is. */
function missedIn(conversation: Conversation, rows: readonly Row[]): { place: number; count: number } | undefined {
  const missed = conversation.missed.value;
  if (!missed) return undefined;
  let first: number | undefined;
  let count = 0;
  for (let place = rows.length - 1; place >= 0; place--) {
    const row = rows[place];
    if (!isSaid(row)) continue;
    if (row.seq <= missed.after) break;
    if (row.seq > missed.upTo || (row.lane === "user" && conversation.isOwn(row))) continue;
    first = place;
    count++;
  }
  return first === undefined ? undefined : { place: first, count };
}
