/** One thread as it is open on this page: its timeline, its socket and what is still to be said, put together. */
import { computed, type ReadonlySignal, signal } from "@preact/signals";
import { asProblem, history, message, Problem, retry } from "../api";
import type { ErrorFrame, Frame, NewMessageFrame, PresenceFrame } from "../wire";
import { Connection, type State } from "./connection";
import { Outbox } from "./outbox";
import { type Said, Timeline } from "./timeline";

/** Messages of a page of the history: the first is short so that it is there at once. */
const FIRST_PAGE = 60;
const PAGE = 200;
/** The history's own bound, for going far back. */
const LONG_PAGE = 500;
/** Messages that are held while the newest are looked at, and at most while somebody reads further up. Who wants to see more
 * of the past searches. */
const HELD = 20_000;
export const MOST_HELD = 100_000;
/** Frames that wait to be shown, past which they are taken in at once. */
const MOST_FRAMES = 2_000;
/** Least milliseconds between what is shown and what comes next, so that a flood leaves the page time for its reader. A lone
 * message does not wait. */
const PACE = 50;
/** Milliseconds more for each character of a reply that grows, which is laid out as a whole each time. */
const PACE_OF_CHARACTER = 0.005;
/** Milliseconds between looks while the page is not seen and draws no frames. */
const UNSEEN_INTERVAL = 250;
/** Milliseconds between two words that one types, and after the last until one does not. */
const TYPING_INTERVAL = 3_000;
const TYPING_END = 4_000;
/** Milliseconds between attempts to read a thread. */
const RELOAD_INTERVAL = 2_000;
/** Milliseconds after a socket was told who is here in which it is told of all that grows, if it was not before: a pusher
 * may have to ask for it. */
const RETOLD = 1_000;

/** What was said while the page was not connected: what has a number beyond `after`, up to `upTo`. */
export interface Missed {
  readonly after: number;
  readonly upTo: number;
}

export interface Speaker {
  /** Whom others know who sits here as; undefined where the room knows it. */
  readonly client: string | undefined;
  readonly name: string | undefined;
}

let opened = 0;

export class Conversation {
  /** Another one each time that a thread is opened. */
  readonly id = ++opened;
  readonly threadId: string;
  readonly timeline = new Timeline();
  readonly outbox: Outbox;
  /** Changes whenever the timeline did. */
  readonly version = signal(0);
  readonly presence = signal<PresenceFrame | undefined>(undefined);
  readonly typing = signal<readonly string[]>([]);
  readonly missed = signal<Missed | undefined>(undefined);
  /** Why the thread cannot be shown, or not any more. */
  readonly problem = signal<Problem | "no longer allowed" | undefined>(undefined);
  readonly isLoaded = signal(false);
  readonly isLoadingOlder = signal(false);
  /** The turn that somebody here asked to stop. */
  readonly stopping = signal<string | undefined>(undefined);
  /** How often somebody here said something. */
  readonly spoken = signal(0);
  /** Something that the room would not do, for a while. */
  readonly notice = signal<Problem | undefined>(undefined);
  /** It could not be read, and is tried again. */
  readonly #isUnread = signal(false);
  readonly #speaker: Speaker;
  readonly #connection: Connection;
  readonly #startOver: () => void;
  #frames: Frame[] = [];
  #older: Promise<void> | undefined;
  #scheduled = false;
  #flushedAt = 0;
  #stopped = false;
  #lostAt: number | undefined;
  #typedAt = 0;
  #typed: ReturnType<typeof setTimeout> | undefined;
  #reload: ReturnType<typeof setTimeout> | undefined;
  #resume: ReturnType<typeof setTimeout> | undefined;

  /** `place`: whose outbox it is, in this browser. `startOver`: the thread is another than it was, as after its backup was
   * restored, and another conversation is to take this one's place. */
  constructor(threadId: string, speaker: Speaker, place: string, startOver: () => void) {
    this.threadId = threadId;
    this.#speaker = speaker;
    this.#startOver = startOver;
    this.outbox = new Outbox(`${place}/${threadId}`, (frame) => this.isOwn(frame));
    this.#connection = new Connection(threadId, {
      query: () => ({ after: String(this.timeline.last), ...(speaker.client ? { client: speaker.client } : {}) }),
      probe: () => history(threadId, { limit: 1 }),
      connected: ({ head }, send) => this.#connected(head, send),
      frame: (frame) => this.#hear(frame),
      closed: () => this.#closed(),
      ended: (problem) => {
        this.problem.value = problem ?? "no longer allowed";
      },
    });
  }

  /** Of its connection; `waiting` also while the thread cannot be read. */
  readonly state: ReadonlySignal<State> = computed(() =>
    this.problem.value ? "ended" : this.#isUnread.value ? "waiting" : this.#connection.state.value,
  );

  isOwn(said: Pick<Said, "author"> | Pick<NewMessageFrame, "author">): boolean {
    return said.author !== undefined && said.author === this.#speaker.name;
  }

  /** Read the newest messages, then listen. Goes on trying. */
  async start(): Promise<void> {
    try {
      const page = await history(this.threadId, { limit: FIRST_PAGE });
      if (this.#stopped) return;
      this.timeline.begin(page, FIRST_PAGE);
      this.isLoaded.value = true;
      this.#isUnread.value = false;
      this.version.value++;
      void this.#connection.open();
    } catch (error) {
      const problem = asProblem(error);
      if (this.#stopped) return;
      this.#isUnread.value = problem.passes;
      if (problem.passes)
        this.#reload = setTimeout(() => void this.start(), (problem.retryAfter ?? 0) * 1000 || RELOAD_INTERVAL);
      else this.problem.value = problem;
    }
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#reload);
    clearTimeout(this.#resume);
    clearTimeout(this.#typed);
    this.outbox.stop();
    this.#connection.stop();
  }

  /** Returns whether it outlasts the page, should the room be away. */
  say(content: string): boolean {
    clearTimeout(this.#typed);
    this.#typedAt = 0;
    const isKept = this.outbox.add(content);
    this.spoken.value++;
    this.version.value++;
    return isKept;
  }

  /** Somebody types, or has stopped to. */
  type(active: boolean): void {
    clearTimeout(this.#typed);
    const now = Date.now();
    if (active) {
      this.#typed = setTimeout(() => this.type(false), TYPING_END);
      if (now - this.#typedAt < TYPING_INTERVAL) return;
      this.#typedAt = now;
    } else {
      if (this.#typedAt === 0) return;
      this.#typedAt = 0;
    }
    this.#connection.send(JSON.stringify({ type: "typing", active }));
  }

  /** The turn that runs, where it can be stopped. */
  get turn(): string | undefined {
    if (this.state.value !== "open") return undefined;
    return this.timeline.growing.findLast((one) => !one.ended)?.turnId;
  }

  /** Stop the agent in the middle of its turn. */
  cancel(): void {
    this.stopping.value = this.turn;
    this.#connection.send('{"type":"cancel"}');
  }

  /** Ask for another turn for a message that failed or was cancelled. */
  async retry(messageId: string): Promise<void> {
    await this.#orNotice(() => retry(messageId));
  }

  /** Read what came before; who asks while that is done waits for it too. */
  loadOlder(limit = PAGE): Promise<void> {
    this.#older ??= this.#readOlder(limit).finally(() => {
      this.#older = undefined;
    });
    return this.#older;
  }

  async #readOlder(limit: number): Promise<void> {
    const { timeline } = this;
    const before = timeline.messages[0]?.seq;
    if (timeline.reachesStart || before === undefined || timeline.messages.length >= MOST_HELD) return;
    this.isLoadingOlder.value = true;
    await this.#orNotice(async () => {
      const page = await history(this.threadId, { limit, before });
      this.#flush();
      await drawn(); // so that what is added above comes alone: a list that grows at both ends at once loses its place
      if (this.#stopped || timeline.messages[0]?.seq !== before) return;
      timeline.prepend(page, limit);
      this.version.value++;
    });
    this.isLoadingOlder.value = false;
  }

  /** The message, once it is among those that are held; undefined where it cannot be had. */
  async reach(messageId: string): Promise<Said | undefined> {
    const found = () => this.timeline.find(messageId);
    if (found()) return found();
    await this.#orNotice(async () => {
      const { seq } = await message(messageId);
      for (let before = this.#oldest; !this.#stopped && before > seq; before = this.#oldest) {
        await this.loadOlder(LONG_PAGE);
        if (this.#oldest === before) break;
      }
    });
    return found();
  }

  /** The number of the oldest message that is held. */
  get #oldest(): number {
    return this.timeline.messages[0]?.seq ?? 0;
  }

  /** Let old messages go that nobody looks at. */
  trim(): void {
    if (this.timeline.trim(HELD)) this.version.value++;
  }

  #connected(head: number, send: (text: string) => void): void {
    if (this.#lostAt !== undefined) this.missed.value = { after: this.#lostAt, upTo: head };
    this.#lostAt = undefined;
    this.outbox.opened(send);
  }

  #closed(): void {
    clearTimeout(this.#resume);
    this.#flush();
    this.#lostAt ??= this.timeline.last;
    this.timeline.interrupt();
    this.outbox.closed();
    this.presence.value = undefined;
    this.typing.value = [];
    this.stopping.value = undefined;
    this.version.value++;
  }

  /** What still grows has been told anew. */
  #resumed(): void {
    this.#flush();
    if (this.timeline.resume()) this.version.value++;
  }

  #hear(frame: Frame): void {
    switch (frame.type) {
      case "presence":
        if (this.presence.value === undefined) this.#resume = setTimeout(() => this.#resumed(), RETOLD);
        this.presence.value = frame;
        break;
      case "typing":
        this.typing.value = frame.clients.filter((name) => name !== this.#speaker.name);
        break;
      case "recorded":
        this.outbox.recorded(frame);
        this.#schedule();
        break;
      case "error":
        if (frame.client_id === undefined) this.#refused(frame);
        else this.outbox.refused(frame);
        this.#schedule();
        break;
      case "reset":
        this.#startOver();
        break;
      case "new_message":
      case "fate":
      case "turn":
      case "delta":
        this.#frames.push(frame);
        if (this.#frames.length >= MOST_FRAMES) this.#flush();
        else this.#schedule();
    }
  }

  /** Something other than a message was not taken: that the turn be stopped, since nobody is told of typing. */
  #refused({ code, message, retry_after }: ErrorFrame): void {
    this.stopping.value = undefined;
    this.notice.value = new Problem(503, code, message, retry_after);
  }

  /** What comes in together is shown together. */
  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const grown = this.timeline.growing.reduce((sum, { text }) => sum + text.length, 0);
    const early = PACE + grown * PACE_OF_CHARACTER - (performance.now() - this.#flushedAt);
    const show = () => void drawn().then(() => this.#flush());
    if (early <= 0) show();
    else setTimeout(show, early);
  }

  #flush(): void {
    this.#scheduled = false;
    this.#flushedAt = performance.now();
    if (this.#stopped) return;
    const frames = this.#frames;
    this.#frames = [];
    for (const frame of frames) if (frame.type === "new_message") this.outbox.seen(frame);
    this.timeline.take(frames);
    this.timeline.trim(MOST_HELD);
    const { value: stopping } = this.stopping;
    if (!this.timeline.growing.some((one) => one.turnId === stopping && !one.ended)) this.stopping.value = undefined;
    this.version.value++;
  }

  async #orNotice(work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.notice.value = asProblem(error);
    }
  }
}

/** Resolves when the page was drawn, or soon where nobody sees it. Not before: rows that come above are measured when they
 * are drawn, and if that is before the list was told how far it was scrolled for them it loses its place. */
const drawn = (): Promise<void> =>
  new Promise((resolve) => {
    requestAnimationFrame(() => setTimeout(resolve));
    setTimeout(resolve, UNSEEN_INTERVAL);
  });
