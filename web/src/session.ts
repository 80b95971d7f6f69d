/** Who is signed in, where the room asks: an access token for some minutes, and the refresh token for the next.
 *
 * Both are this browser's, so that its pages share one sign-in. A refresh token is good once: pages take turns.
 */
import { computed, signal } from "@preact/signals";
import { forget, isNumber, isRecord, isText, keep, kept, whenKeptElsewhere } from "./storage";
import type { Tokens } from "./wire";

interface SignIn {
  access: string;
  refresh: string;
  /** When the access token is to be renewed, in milliseconds since 1970. */
  renewAt: number;
}

const NAME = "sign-in";
/** Milliseconds before its end in which an access token is not used any more, and the most that may be of its life. */
const MARGIN = 30_000;
const MOST_OF_LIFE = 0.9;
/** Milliseconds that a renewal may take. */
const RENEWAL_TIMEOUT = 15_000;
/** Milliseconds to wait for another page that is at it. */
const LOCK_TIMEOUT = 20_000;

const isSignIn = (value: unknown): value is SignIn =>
  isRecord(value) && isText(value.access) && isText(value.refresh) && isNumber(value.renewAt);

const signIn = signal(kept(NAME, isSignIn));
whenKeptElsewhere(NAME, () => {
  signIn.value = kept(NAME, isSignIn);
});

/** Which sign-in it is, of those that the room knows: its refresh tokens are `m3r_<which>_<secret>`. */
export const whichSignIn = computed(() => signIn.value?.refresh.split("_")[1]);
export const isSignedIn = computed(() => signIn.value !== undefined);

export function signedInWith(tokens: Tokens): void {
  const life = tokens.expires_in * 1000;
  const renewAt = Date.now() + life - Math.min(MARGIN, life * MOST_OF_LIFE);
  signIn.value = { access: tokens.access_token, refresh: tokens.refresh_token, renewAt };
  keep(NAME, signIn.value);
}

/** Forget the sign-in here; whether the room still knows it is for the caller to see to. */
export function forgetSignIn(): void {
  signIn.value = undefined;
  forget(NAME);
}

/** What shows who somebody is, renewed where it is about to end; undefined where nobody is signed in. A token that the
 * room `refused` is not used again. Rejects where the room does not answer. */
export async function accessToken(refused?: string): Promise<string | undefined> {
  const now = () => signIn.peek(); // an effect that asks the room for something is not run anew for each renewal
  const good = () => {
    const known = now();
    return known !== undefined && known.renewAt > Date.now() && known.access !== refused;
  };
  if (!now() || good()) return now()?.access;
  await oneAtATime(async () => {
    signIn.value = kept(NAME, isSignIn) ?? now(); // another page may have renewed it meanwhile
    const known = now();
    if (known && !good()) await renew(known.refresh);
  });
  return now()?.access;
}

async function renew(refresh: string): Promise<void> {
  const answer = await fetch("/api/refresh", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ refresh_token: refresh }),
    signal: AbortSignal.timeout(RENEWAL_TIMEOUT),
  });
  if (answer.ok) signedInWith((await answer.json()) as Tokens);
  else if (answer.status === 401) forgetSignIn();
  else throw new Error(`the sign-in could not be renewed: ${answer.status}`);
}

let renewing: Promise<void> | undefined;

/** Among the pages of this browser where it has locks, which it has for pages that came safely; else among this one's
 * own callers. */
function oneAtATime(work: () => Promise<void>): Promise<void> {
  const inTurn = () => navigator.locks.request("m3.sign-in", { signal: AbortSignal.timeout(LOCK_TIMEOUT) }, work);
  renewing ??= (navigator.locks ? inTurn() : work()).finally(() => {
    renewing = undefined;
  });
  return renewing;
}
