/** What this browser keeps. Without it, as in a private window that allows none, things are as at a first visit. */

const PREFIX = "m3.";

/** What is kept under the name, if it still is what the check says. */
export function kept<T>(name: string, is: (value: unknown) => value is T): T | undefined {
  try {
    const value: unknown = JSON.parse(localStorage.getItem(PREFIX + name) ?? "null");
    return is(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

export function keep(name: string, value: unknown): void {
  try {
    if (value === null || value === undefined) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // full, or not allowed
  }
}

/** Tells when another page of this browser keeps something else under the name. */
export function whenKeptElsewhere(name: string, then: () => void): () => void {
  const heard = (event: StorageEvent) => {
    if (event.key === PREFIX + name) then();
  };
  addEventListener("storage", heard);
  return () => removeEventListener("storage", heard);
}

export const isText = (value: unknown): value is string => typeof value === "string";
export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
