/** What the page asks of a browser that jsdom is not. */
import { vi } from "vitest";

vi.stubGlobal("matchMedia", () => ({ matches: false, addEventListener: () => undefined }));
if ("Element" in globalThis) Element.prototype.scrollIntoView = () => undefined;
