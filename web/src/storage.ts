/** What is kept in this browser. Without it, as in a private window that allows none, things are as at a first visit. */

const PREFIX = "m3.";

function drawer(open: () => Storage) {
  return {
    /** What is kept under the name, if it still is what the check says. */
    kept<T>(name: string, is: (value: unknown) => value is T): T | undefined {
      try {
        const value: unknown = JSON.parse(open().getItem(PREFIX + name) ?? "null");
        return is(value) ? value : undefined;
      } catch {
        return undefined;
      }
    },

    /** Returns whether it is: there may be no room for it, or none allowed. */
    keep(name: string, value: unknown): boolean {
      try {
        open().setItem(PREFIX + name, JSON.stringify(value));
        return true;
      } catch {
        return false;
      }
    },

    forget(name: string): void {
      try {
        open().removeItem(PREFIX + name);
      } catch {
        // then nothing was kept either
      }
    },

    /** The names that begin so, under which something is kept. */
    namesKept(beginning: string): string[] {
      try {
        return Object.keys(open())
          .filter((name) => name.startsWith(PREFIX + beginning))
          .map((name) => name.slice(PREFIX.length));
      } catch {
        return [];
      }
    },
  };
}

/** For all pages of the browser. */
export const { kept, keep, forget, namesKept } = drawer(() => localStorage);
/** For this page alone, as long as it is open, also when it is loaded again. */
export const here = drawer(() => sessionStorage);

/** Tells when another page of this browser keeps or forgets something under a name that begins so; returns what ends
 * that. */
export function whenKeptElsewhere(beginning: string, then: (name: string) => void): () => void {
  const heard = ({ key }: StorageEvent) => {
    if (key?.startsWith(PREFIX + beginning)) then(key.slice(PREFIX.length));
  };
  addEventListener("storage", heard);
  return () => removeEventListener("storage", heard);
}

export const isText = (value: unknown): value is string => typeof value === "string";
export const isNumber = (value: unknown): value is number => typeof value === "number";
export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
