/** What is known of a thread: its messages by their numbers, and the replies that are being said. Knows nothing of pages
 * or sockets.
 *
 * Messages are never changed but replaced, so that whoever shows one sees at a glance whether it is another.
 */
import type { DeltaFrame, Fate, FateFrame, Frame, HistoryMessage, Lane, NewMessageFrame, TurnFrame } from "../wire";

export interface Said {
  readonly messageId: string;
  readonly seq: number;
  readonly lane: Lane;
  readonly content: string;
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly author: string | undefined;
  readonly inReplyTo: readonly string[];
  /** On a reply: somebody stopped it before it was whole. */
  readonly cancelled: boolean;
  /** It could not be opened. */
  readonly sealed: boolean;
  /** Of the agent's own undefined. */
  readonly fate: Fate | undefined;
  readonly replyId: string | undefined;
  readonly reason: string | undefined;
}

/** A reply that is being said. */
export interface Growing {
  readonly replyId: string;
  readonly turnId: string;
  readonly inReplyTo: readonly string[];
  readonly text: string;
  /** The index that its next piece is to have. */
  readonly next: number;
  /** Pieces of it were missed, as by whoever came in the middle. */
  readonly torn: boolean;
  /** The turn has ended, and the reply is about to be recorded. */
  readonly ended: boolean;
}

/** How many messages more than are to be held there may be before the oldest go, so that it happens seldom. */
export const SLACK = 5_000;
/** Replies that grow at once. There is a turn at a time, so what is older than this was missed the end of. */
const GROWING = 4;
/** Fates that are remembered of messages that are not held. */
const EARLY = 1_000;

export class Timeline {
  messages: readonly Said[] = [];
  growing: readonly Growing[] = [];
  /** The highest number of the thread that was heard of: what `after` of the next socket is. */
  last = 0;
  /** Whether the first message of the thread is among them. */
  reachesStart = false;
  /** What grew when the socket went. */
  #unheard: readonly Growing[] = [];
  #byId = new Map<string, Said>();
  /** What was heard of messages that are not held: the page of the history with them may be on its way, and be older. */
  #early = new Map<string, FateFrame>();

  find(messageId: string): Said | undefined {
    return this.#byId.get(messageId);
  }

  /** Begin with the newest page of the history. */
  begin(page: readonly HistoryMessage[], limit: number): void {
    this.messages = [];
    this.growing = [];
    this.last = 0;
    this.#byId.clear();
    this.#early.clear();
    this.#addAll(page.map(ofHistory));
    for (const { seq, rev } of page) this.last = Math.max(this.last, seq, rev);
    this.reachesStart = page.length < limit;
  }

  /** Add the page of the history before what is there. */
  prepend(page: readonly HistoryMessage[], limit: number): void {
    this.#addAll(page.map(ofHistory));
    this.reachesStart = page.length < limit;
  }

  take(frames: readonly Frame[]): void {
    const added: Said[] = [];
    const changed = new Set<string>();
    for (const frame of frames) {
      if (frame.type === "new_message") {
        this.last = Math.max(this.last, frame.seq);
        this.#add(ofFrame(frame), added);
      } else if (frame.type === "fate") {
        this.last = Math.max(this.last, frame.number ?? 0);
        if (this.#settle(frame)) changed.add(frame.message_id);
      } else if (frame.type === "turn") this.#turn(frame);
      else if (frame.type === "delta") this.#grow(frame);
    }
    this.#show(added, changed);
  }

  /** What grows is not heard of any more: the socket is gone. */
  interrupt(): void {
    this.#unheard = this.growing;
  }

  /** The next socket has told what grows, anew: what it did not is over. Returns whether that changed anything. */
  resume(): boolean {
    const before = this.growing;
    this.growing = before.filter((one) => !this.#unheard.includes(one));
    this.#unheard = [];
    return this.growing.length < before.length;
  }

  /** Let the oldest messages go where there are more than that, and some. Returns whether any went. */
  trim(held: number): boolean {
    if (this.messages.length <= held + SLACK) return false;
    for (const gone of this.messages.slice(0, -held)) this.#byId.delete(gone.messageId);
    this.messages = this.messages.slice(-held);
    this.reachesStart = false;
    return true;
  }

  #addAll(said: readonly Said[]): void {
    const added: Said[] = [];
    for (const one of said) this.#add(one, added);
    this.#show(added);
  }

  /** Know the message, and put it among those to be shown unless it is there. */
  #add(one: Said, added: Said[]): void {
    this.#over((growing) => growing.replyId === one.messageId || answers(growing, one.inReplyTo));
    if (this.#byId.has(one.messageId)) return;
    const early = this.#early.get(one.messageId);
    this.#early.delete(one.messageId);
    this.#byId.set(one.messageId, early ? settled(one, early) : one);
    added.push(one);
  }

  /** Returns whether it is of a message that is held. */
  #settle(frame: FateFrame): boolean {
    if (frame.fate !== "pending") this.#over((growing) => answers(growing, [frame.message_id]));
    const known = this.#byId.get(frame.message_id);
    if (known) this.#byId.set(frame.message_id, settled(known, frame));
    else {
      this.#early.delete(frame.message_id);
      this.#early.set(frame.message_id, frame);
      if (this.#early.size > EARLY) this.#early.delete(this.#early.keys().next().value as string);
    }
    return known !== undefined;
  }

  /** One new array for all of it: there may be thousands of messages in it, and hundreds of changes at once. */
  #show(added: readonly Said[], changed: ReadonlySet<string> = new Set()): void {
    if (!added.length && !changed.size) return;
    const newest = this.messages.at(-1)?.seq ?? 0;
    const oldest = this.messages[0]?.seq ?? Number.POSITIVE_INFINITY;
    const current = added.map((one) => this.#byId.get(one.messageId) as Said);
    const isAbove = current.length > 0 && (current.at(-1) as Said).seq < oldest;
    const messages = isAbove ? [...current, ...this.messages] : [...this.messages, ...current];
    if (!isAbove && current.some((one, place) => one.seq <= (current[place - 1]?.seq ?? newest))) {
      messages.sort((one, other) => one.seq - other.seq);
    }
    for (const id of changed) {
      const now = this.#byId.get(id) as Said;
      messages[placeOf(messages, now.seq)] = now;
    }
    this.messages = messages;
  }

  /** What became of its messages ends a turn too, where its own end was not heard of. */
  #over(is: (growing: Growing) => boolean): void {
    if (this.growing.some(is)) this.growing = this.growing.filter((one) => !is(one));
  }

  #turn(frame: TurnFrame): void {
    if (this.#byId.has(frame.reply_id)) return; // it is recorded: this comes late
    const others = without(this.growing, frame.reply_id);
    const { reply_id: replyId, turn_id: turnId, in_reply_to: inReplyTo = [] } = frame;
    if (frame.state === "started") {
      const begun = { replyId, turnId, inReplyTo, text: "", next: 0, torn: false, ended: false };
      this.growing = [...others, begun].slice(-GROWING);
      return;
    }
    const own = this.growing.find((one) => one.replyId === replyId);
    const comes = frame.outcome === "answered" || (frame.outcome === "cancelled" && own?.text);
    this.growing = own && comes ? [...others, { ...own, ended: true }] : others;
  }

  #grow(frame: DeltaFrame): void {
    if (this.#byId.has(frame.reply_id)) return; // it is recorded: this piece comes late
    const own = this.growing.find((one) => one.replyId === frame.reply_id && one.turnId === frame.turn_id) ?? {
      replyId: frame.reply_id,
      turnId: frame.turn_id,
      inReplyTo: [],
      text: "",
      next: 0,
      torn: false,
      ended: false,
    };
    const torn = own.torn || frame.index !== own.next;
    const grown = { ...own, text: own.text + frame.content, next: frame.index + (frame.pieces ?? 1), torn };
    this.growing = [...without(this.growing, frame.reply_id), grown].slice(-GROWING);
  }
}

const answers = (growing: Growing, messageIds: readonly string[]): boolean =>
  messageIds.some((one) => growing.inReplyTo.includes(one));

const settled = (said: Said, { fate, reply_id, reason }: FateFrame): Said => ({
  ...said,
  fate,
  replyId: reply_id,
  reason,
});

/** Where the message of that number is, or would be, among messages in order. */
export function placeOf(messages: readonly Said[], seq: number): number {
  let low = 0;
  let high = messages.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((messages[middle] as Said).seq < seq) low = middle + 1;
    else high = middle;
  }
  return low;
}

function without(growing: readonly Growing[], replyId: string): readonly Growing[] {
  return growing.some((one) => one.replyId === replyId) ? growing.filter((one) => one.replyId !== replyId) : growing;
}

export function ofHistory(message: HistoryMessage): Said {
  return {
    messageId: message.message_id,
    seq: message.seq,
    lane: message.source,
    content: message.content,
    at: Date.parse(message.timestamp),
    author: message.author ?? undefined,
    inReplyTo: message.in_reply_to,
    cancelled: message.cancelled,
    sealed: message.sealed ?? false,
    fate: message.fate ?? undefined,
    replyId: message.reply_id ?? undefined,
    reason: message.reason ?? undefined,
  };
}

function ofFrame(frame: NewMessageFrame): Said {
  return {
    messageId: frame.message_id,
    seq: frame.seq,
    lane: frame.source,
    content: frame.content,
    at: frame.timestamp * 1000,
    author: frame.author,
    inReplyTo: frame.in_reply_to,
    cancelled: frame.cancelled ?? false,
    sealed: frame.sealed ?? false,
    fate: frame.source === "assistant" ? undefined : "pending",
    replyId: undefined,
    reason: undefined,
  };
}
