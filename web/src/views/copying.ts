import { toast } from "../app";
import { words } from "../words";

/** Put it where it can be pasted from. Pages that did not come safely have no clipboard; a selection does it there. */
export async function copy(text: string): Promise<void> {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "seldom";
  (document.querySelector("dialog[open]") ?? document.body).append(field); // beside an open window nothing is selected
  field.select();
  document.execCommand("copy");
  field.remove();
}

/** The buttons are in what marked makes (markdown.ts), where nobody can listen to each. */
export function copyCodeWhenAsked(): void {
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest(".code .copy") : null;
    const code = button?.closest(".code")?.querySelector("code")?.textContent;
    if (!code) return;
    void copy(code).then(() => {
      toast.value = words.value.copied;
    });
  });
}
