/** A socket of a thread that comes back by itself, and goes on behind the last number that was heard of. */
import { type ReadonlySignal, signal } from "@preact/signals";
import { asProblem, type Problem, socketAddress } from "../api";
import type { ConnectedFrame, Frame } from "../wire";

/** `ended`: it does not come back as things are. */
export type State = "connecting" | "open" | "waiting" | "ended";

/** Milliseconds between the pings of an open socket, and in which a pong must come. */
const PING_INTERVAL = 30_000;
const PONG_TIMEOUT = 10_000;
/** Milliseconds that opening may take. */
const OPEN_TIMEOUT = 10_000;
/** Milliseconds before the first attempt to come back, and the most before a later one. */
const SOONEST = 500;
const LATEST = 15_000;
/** From this close code on the room says not to come back as one is (the room's own codes are 4000 to 4999). */
const NOT_AS_YOU_ARE = 4500;

export interface Listener {
  /** What the socket's address is to have beside the thread: `after`, `client`. */
  query: () => Record<string, string>;
  /** Rejects with Problem where the thread is not there or not for this reader: asked after a socket did not open, of
   * which a browser tells no reason. */
  probe: () => Promise<unknown>;
  /** The room has a place for the socket. */
  connected: (frame: ConnectedFrame, send: (text: string) => void) => void;
  frame: (frame: Frame) => void;
  closed: () => void;
  ended: (problem: Problem | undefined) => void;
}

export class Connection {
  readonly #threadId: string;
  readonly #listener: Listener;
  readonly #state = signal<State>("connecting");
  #socket: WebSocket | undefined;
  #attempts = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #pinging: ReturnType<typeof setInterval> | undefined;
  #stopped = false;

  constructor(threadId: string, listener: Listener) {
    this.#threadId = threadId;
    this.#listener = listener;
    addEventListener("online", this.#now);
    addEventListener("offline", this.#lost);
    document.addEventListener("visibilitychange", this.#now);
  }

  get state(): ReadonlySignal<State> {
    return this.#state;
  }

  send(text: string): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(text);
  }

  async open(): Promise<void> {
    if (this.#stopped || this.#socket) return;
    clearTimeout(this.#timer);
    this.#state.value = "connecting";
    const attempt = ++this.#attempts;
    try {
      if (attempt > 1) await this.#listener.probe();
      const address = await socketAddress(this.#threadId, this.#listener.query());
      if (this.#stopped || this.#socket || attempt !== this.#attempts) return;
      this.#listen(new WebSocket(address));
    } catch (error) {
      const problem = asProblem(error);
      if (this.#stopped) return;
      if (problem.passes) this.#comeBack(problem.retryAfter);
      else this.#end(problem);
    }
  }

  stop(): void {
    this.#stopped = true;
    removeEventListener("online", this.#now);
    removeEventListener("offline", this.#lost);
    document.removeEventListener("visibilitychange", this.#now);
    clearTimeout(this.#timer);
    this.#drop();
  }

  #listen(socket: WebSocket): void {
    this.#socket = socket;
    const late = setTimeout(() => this.#fail(socket), OPEN_TIMEOUT);
    socket.onmessage = ({ data }: MessageEvent<string>) => {
      const frame = JSON.parse(data) as Frame;
      if (frame.type === "connected") {
        clearTimeout(late);
        this.#attempts = 0; // an open socket alone is no success: a full thread is closed again
        this.#state.value = "open";
        this.#keepAlive(socket);
        this.#listener.connected(frame, (text) => socket.send(text));
      } else if (frame.type === "pong") this.#heard = true;
      else this.#listener.frame(frame);
    };
    socket.onclose = ({ code }) => {
      clearTimeout(late);
      this.#fail(socket, code);
    };
  }

  /** The socket is over: tell, and come back unless the room said not to. */
  #fail(socket: WebSocket, code = 1006): void {
    if (socket !== this.#socket) return;
    this.#drop();
    this.#listener.closed();
    if (code >= NOT_AS_YOU_ARE && code < 5000) this.#end(undefined);
    else this.#comeBack();
  }

  #drop(): void {
    const socket = this.#socket;
    this.#socket = undefined;
    clearInterval(this.#pinging);
    if (!socket) return;
    socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #end(problem: Problem | undefined): void {
    this.#stopped = true;
    this.#state.value = "ended";
    this.#listener.ended(problem);
  }

  /** Each time later, and not all pages at once. `wait` in seconds. */
  #comeBack(wait?: number): void {
    if (this.#stopped) return;
    this.#state.value = "waiting";
    const backoff = Math.min(LATEST, SOONEST * 2 ** Math.max(0, this.#attempts - 1)) * (0.75 + Math.random() / 2);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.open(), Math.max(backoff, (wait ?? 0) * 1000));
  }

  #heard = false;

  #keepAlive(socket: WebSocket): void {
    this.#pinging = setInterval(() => {
      this.#heard = false;
      socket.send("ping");
      setTimeout(() => {
        if (!this.#heard) this.#fail(socket);
      }, PONG_TIMEOUT);
    }, PING_INTERVAL);
  }

  readonly #now = (): void => {
    if (document.visibilityState !== "visible" || this.#state.value !== "waiting") return;
    this.#attempts = Math.min(this.#attempts, 1);
    void this.open();
  };

  readonly #lost = (): void => {
    if (this.#socket) this.#fail(this.#socket);
  };
}
