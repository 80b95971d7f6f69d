/** What is typed and not said yet. */
import { signal } from "@preact/signals";

export const draft = signal("");
