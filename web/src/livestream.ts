/** A scripted livestream for a room that is being tried: comments come in as a program would send them. */
import { signal } from "@preact/signals";
import { asProblem, feed } from "./api";
import { toast } from "./app";
import { language } from "./preferences";
import { sentenceOf } from "./words";
import { COMMENTS, type Comment } from "./words/livestream";

/** Seconds that it lasts. */
const LENGTH = 60;
/** Seconds between what the program sends: what came in meanwhile goes together, and is answered together. */
const INTERVAL = 3;
const PROGRAM = "livestream";

/** Seconds that are left of the one that plays. */
export const playing = signal<number | undefined>(undefined);
let beat: ReturnType<typeof setInterval> | undefined;

export function stopLivestream(): void {
  clearInterval(beat);
  playing.value = undefined;
}

export function playLivestream(threadId: string): void {
  stopLivestream();
  const run = crypto.getRandomValues(new Uint32Array(2)).join("-");
  const comments = COMMENTS[language.value];
  let second = 0;
  let next = 0;
  playing.value = LENGTH;
  const tick = () => {
    const due: Comment[] = [];
    while (next < comments.length && (comments[next] as Comment)[0] < second + INTERVAL)
      due.push(comments[next++] as Comment);
    const messages = due.map(([, who, said], place) => ({
      message: `${who}: ${said}`,
      key: `${run}-${next}-${place}`,
    }));
    if (messages.length) void feed(threadId, PROGRAM, messages).catch(failed);
    second += INTERVAL;
    playing.value = LENGTH - second;
    if (second >= LENGTH || next >= comments.length) stopLivestream();
  };
  beat = setInterval(tick, INTERVAL * 1000);
  tick();
}

function failed(error: unknown): void {
  toast.value = sentenceOf(asProblem(error));
  stopLivestream();
}
