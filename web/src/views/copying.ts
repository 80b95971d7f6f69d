import { toast } from "../app";
import { words } from "../words";

/** Put it where it can be pasted from; tells whether the browser let that be. Pages that did not come safely have no
 * clipboard, and there a selection does it. */
export async function copy(text: string): Promise<boolean> {
  if (!navigator.clipboard) return copySelected(text);
  return navigator.clipboard.writeText(text).then(
    () => true,
    () => false,
  );
}

function copySelected(text: string): boolean {
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "seldom";
  (document.querySelector("dialog[open]") ?? document.body).append(field); // beside an open window nothing is selected
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  return isCopied;
}

/** The buttons are in what marked makes (markdown.ts), where nobody can listen to each. */
export function copyCodeWhenAsked(): void {
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest(".code .copy") : null;
    const code = button?.closest(".code")?.querySelector("code")?.textContent;
    if (!code) return;
    void copy(code).then((isCopied) => {
      toast.value = isCopied ? words.value.copied : words.value.notCopied;
    });
  });
}
