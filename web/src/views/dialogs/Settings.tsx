import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { changeSettings, settings } from "../../api";
import { closeDialog, mayConfigure, threadId, toast } from "../../app";
import type { Policy, ThreadSettings } from "../../wire";
import { words } from "../../words";
import { Button } from "../Button";
import { Choice } from "../Choice";
import { Dialog } from "../Dialog";
import { Refusal, useAttempt } from "../Refusal";
import { BOUNDS, LONGEST_PROMPT, numberIn } from "./bounds";

const POLICIES: readonly Policy[] = ["each", "coalesce", "interrupt", "ignore"];
type NumberName = keyof typeof BOUNDS;
const NUMBERS: readonly NumberName[] = ["api_ttl", "api_cap", "batch_messages", "merge_window"];
type Typed = Record<NumberName, string>;

/** How the agent deals with the thread. */
export function Settings() {
  const thread = threadId.value;
  const [loaded, setLoaded] = useState<ThreadSettings | undefined>(undefined);
  const loading = useAttempt();
  useEffect(() => void loading.attempt(async () => setLoaded(await settings(thread))), [thread]);
  return (
    <Dialog title={words.value.settings} close={closeDialog}>
      <Refusal of={loading.problem} />
      {loaded ? <Form thread={thread} loaded={loaded} /> : loading.isBusy && <p role="status">{words.value.loading}</p>}
    </Dialog>
  );
}

function Form({ thread, loaded }: { thread: string; loaded: ThreadSettings }) {
  const [wanted, setWanted] = useState(loaded);
  const [typed, setTyped] = useState(() => typedOf(loaded));
  /** How often it was to be saved. */
  const [attempts, setAttempts] = useState(0);
  const form = useRef<HTMLFormElement>(null);
  useLayoutEffect(() => {
    if (attempts) form.current?.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus();
  }, [attempts]);
  const saving = useAttempt();
  const isReadOnly = !mayConfigure.value;
  const change = (part: Partial<ThreadSettings>) => setWanted({ ...wanted, ...part });
  const isGood = (name: NumberName) => numberIn(typed[name], BOUNDS[name]) !== undefined;
  const [isMoreOpen, setMoreOpen] = useState(NUMBERS.some((name) => loaded[name] !== null));

  async function save(event: Event): Promise<void> {
    event.preventDefault();
    setAttempts(attempts + 1);
    if (!NUMBERS.every(isGood)) {
      setMoreOpen(true);
      return;
    }
    const worked = await saving.attempt(async () => {
      const numbers = Object.fromEntries(NUMBERS.map((name) => [name, numberIn(typed[name], BOUNDS[name]) ?? null]));
      const prompt = wanted.system_prompt?.trim() ? wanted.system_prompt : null;
      await changeSettings(thread, { ...wanted, ...numbers, system_prompt: prompt });
    });
    if (!worked) return;
    toast.value = words.value.saved;
    closeDialog();
  }

  const labels: Record<NumberName, string> = {
    api_ttl: words.value.apiTtl,
    api_cap: words.value.apiCap,
    batch_messages: words.value.batchMessages,
    merge_window: words.value.mergeWindow,
  };
  return (
    <form ref={form} onSubmit={save} noValidate>
      <p class="hint">{isReadOnly ? words.value.settingsReadOnly : words.value.settingsIntro}</p>
      <Choice
        label={words.value.pause}
        value={wanted.pause ?? "none"}
        choose={(pause) => change({ pause: pause === "none" ? null : pause })}
        options={[
          ["none", words.value.pauses.none],
          ["wait", words.value.pauses.wait],
          ["ignore", words.value.pauses.ignore],
        ]}
        disabled={isReadOnly}
      />
      <label>
        {words.value.systemPrompt}
        <textarea
          rows={5}
          maxLength={LONGEST_PROMPT}
          readOnly={isReadOnly}
          value={wanted.system_prompt ?? ""}
          onInput={(event) => change({ system_prompt: event.currentTarget.value })}
        />
        <small>{words.value.systemPromptHint}</small>
      </label>
      <PolicyField
        label={words.value.userPolicy}
        value={wanted.user_policy}
        change={(user_policy) => change({ user_policy })}
      />
      <PolicyField
        label={words.value.apiPolicy}
        value={wanted.api_policy}
        change={(api_policy) => change({ api_policy })}
      />
      <details open={isMoreOpen} onToggle={(event) => setMoreOpen(event.currentTarget.open)}>
        <summary>{words.value.more}</summary>
        <div class="stack">
          {NUMBERS.map((name) => (
            <NumberField
              key={name}
              label={labels[name]}
              name={name}
              value={typed[name]}
              isWrong={attempts > 0 && !isGood(name)}
              change={(text) => setTyped({ ...typed, [name]: text })}
            />
          ))}
        </div>
      </details>
      <Refusal of={saving.problem} />
      {!isReadOnly && (
        <div class="actions">
          <button type="button" onClick={closeDialog}>
            {words.value.cancel}
          </button>
          <Button class="primary" type="submit" isBusy={saving.isBusy}>
            {words.value.save}
          </Button>
        </div>
      )}
    </form>
  );
}

const typedOf = (loaded: ThreadSettings): Typed =>
  Object.fromEntries(NUMBERS.map((name) => [name, loaded[name] === null ? "" : String(loaded[name])])) as Typed;

function PolicyField(props: { label: string; value: Policy | null; change: (policy: Policy | null) => void }) {
  return (
    <label>
      {props.label}
      <select
        disabled={!mayConfigure.value}
        value={props.value ?? ""}
        onChange={(event) => props.change((event.currentTarget.value || null) as Policy | null)}
      >
        <option value="">{words.value.asTheRoom}</option>
        {POLICIES.map((policy) => (
          <option key={policy} value={policy}>
            {words.value.policies[policy]}
          </option>
        ))}
      </select>
    </label>
  );
}

function NumberField(props: {
  label: string;
  name: NumberName;
  value: string;
  isWrong: boolean;
  change: (text: string) => void;
}) {
  const error = useId();
  const { least, most, isWhole } = BOUNDS[props.name];
  return (
    <label>
      {props.label}
      <input
        inputMode={isWhole ? "numeric" : "decimal"}
        placeholder={words.value.asTheRoom}
        readOnly={!mayConfigure.value}
        value={props.value}
        aria-invalid={props.isWrong}
        {...(props.isWrong && { "aria-describedby": error })}
        onInput={(event) => props.change(event.currentTarget.value)}
      />
      {props.isWrong && (
        <small id={error} class="wrong" role="alert">
          {(isWhole ? words.value.wholeFrom : words.value.numberFrom)(least, most)}
        </small>
      )}
    </label>
  );
}
