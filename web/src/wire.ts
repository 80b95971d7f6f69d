/** What the room says and is told: the shapes of its HTTP API and of the frames on its sockets. */

/** Who speaks: a person, a program or the agent. */
export type Lane = "user" | "api" | "assistant";
export const LANES: readonly Lane[] = ["user", "api", "assistant"];

/** What became of a message of a person or a program. */
export type Fate = "pending" | "answered" | "merged" | "expired" | "shed" | "ignored" | "cancelled" | "failed";

export interface RoomInfo {
  auth: "open" | "required";
  /** Whether the demo model answers, and no real one. */
  demo: boolean;
  /** Whether whoever is invited may make an account. */
  sign_up: boolean;
  several_tenants: boolean;
  /** Longest message, in bytes of UTF-8. */
  message_limit: number;
  version: string;
}

export interface Me {
  kind: "person" | "operator" | "program" | "anyone";
  tenant: string;
  name: string | null;
}

/** A message as the history has it. */
export interface HistoryMessage {
  message_id: string;
  seq: number;
  /** The number of its last change. */
  rev: number;
  source: Lane;
  content: string;
  /** ISO 8601. */
  timestamp: string;
  author: string | null;
  in_reply_to: string[];
  cancelled: boolean;
  sealed?: boolean;
  fate: Fate | null;
  reply_id: string | null;
  reply_seq: number | null;
  reason: string | null;
}

export interface ThreadInList {
  thread_id: string;
  visibility: "private" | "open";
  role: Role | null;
  /** The last number that was given out in it. */
  head: number;
  /** When something was last said in it, ISO 8601. */
  last_at: string | null;
}

export type Role = "owner" | "member" | "reader" | "feeder";

export interface Member {
  name: string;
  kind: "person" | "program";
  role: Role;
}

export interface Invite {
  prefix: string;
  role: "member" | "reader";
  /** Nobody who is known where it was made at the machine. */
  made_by: string | null;
  expires_at: string;
}

export type Policy = "each" | "coalesce" | "interrupt" | "ignore";

/** What is null is as the room has it. */
export interface ThreadSettings {
  system_prompt: string | null;
  user_policy: Policy | null;
  api_policy: Policy | null;
  pause: "wait" | "ignore" | null;
  /** Seconds. */
  api_ttl: number | null;
  api_cap: number | null;
  batch_messages: number | null;
  /** Seconds. */
  merge_window: number | null;
}

export interface Tokens {
  access_token: string;
  /** Seconds. */
  expires_in: number;
  refresh_token: string;
}

export interface ConnectedFrame {
  type: "connected";
  connections: number;
  /** The thread's last number then: what comes up to it was missed. */
  head: number;
}

export interface NewMessageFrame {
  type: "new_message";
  message_id: string;
  seq: number;
  source: Lane;
  content: string;
  /** Seconds since 1970. */
  timestamp: number;
  author?: string;
  in_reply_to: string[];
  cancelled?: boolean;
  sealed?: boolean;
}

export interface FateFrame {
  type: "fate";
  message_id: string;
  /** The thread's number of this change; a reply that is the fate has its own. */
  number?: number;
  fate: Fate;
  reply_id?: string;
  reply_seq?: number;
  reason?: string;
}

export interface TurnFrame {
  type: "turn";
  state: "started" | "ended";
  turn_id: string;
  reply_id: string;
  /** When it started. */
  in_reply_to?: string[];
  /** When it ended. */
  outcome?: "answered" | "cancelled" | "failed" | "interrupted";
}

export interface DeltaFrame {
  type: "delta";
  turn_id: string;
  reply_id: string;
  index: number;
  /** So many in one, from the index on. */
  pieces?: number;
  content: string;
}

export interface PresenceFrame {
  type: "presence";
  connections: number;
  clients: string[];
  /** Names that are not listed. */
  more?: number;
}

export interface TypingFrame {
  type: "typing";
  clients: string[];
}

export interface RecordedFrame {
  type: "recorded";
  message_id: string;
  seq: number;
  client_id?: string;
}

export interface ErrorFrame {
  type: "error";
  code: string;
  message: string;
  client_id?: string;
  /** Seconds. */
  retry_after?: number;
}

export type Frame =
  | ConnectedFrame
  | { type: "pong"; timestamp: number }
  | { type: "reset"; head: number }
  | { type: "cancelling" }
  | NewMessageFrame
  | FateFrame
  | TurnFrame
  | DeltaFrame
  | PresenceFrame
  | TypingFrame
  | RecordedFrame
  | ErrorFrame;
