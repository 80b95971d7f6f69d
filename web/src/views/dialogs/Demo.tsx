import { closeDialog } from "../../app";
import { words } from "../../words";
import { CopyButton } from "../CopyButton";
import { Dialog } from "../Dialog";

const COMMAND = "LLM_BASE_URL=http://localhost:11434/v1 LLM_MODEL=qwen3 make run";

/** How to have a real model answer. */
export function Demo() {
  return (
    <Dialog title={words.value.demoTitle} close={closeDialog}>
      <p>{words.value.demoText}</p>
      <div class="stack">
        <pre class="command">{COMMAND}</pre>
        <div class="actions">
          <CopyButton content={COMMAND} />
        </div>
      </div>
      <p class="hint">{words.value.demoCluster}</p>
    </Dialog>
  );
}
