import { useId, useState } from "preact/hooks";
import { changePassword, signOut } from "../../api";
import { closeDialog, conversation, isEnding, OPEN_PLACE, place, room, toast, who } from "../../app";
import { isName, LONGEST_NAME, ownName, THEMES, theme } from "../../preferences";
import { threadsWaiting } from "../../thread/outbox";
import { words } from "../../words";
import { Button } from "../Button";
import { Choice } from "../Choice";
import { Dialog } from "../Dialog";
import { forgetDrafts } from "../draft";
import { PasswordField, refusalOfNew } from "../fields";
import { LanguageChoice } from "../LanguageChoice";
import { Refusal, useAttempt, type Why } from "../Refusal";

export function Preferences() {
  return (
    <Dialog title={words.value.preferences} close={closeDialog}>
      {room.value?.auth === "open" ? <OwnName /> : <Account />}
      <Choice
        label={words.value.theme}
        value={theme.value}
        choose={(chosen) => {
          theme.value = chosen;
        }}
        options={THEMES.map((one) => [one, words.value.themes[one]] as const)}
      />
      <LanguageChoice />
      <footer>
        <a href="/docs" target="_blank" rel="noopener">
          {words.value.apiDocs}
        </a>
        <span class="hint">{room.value && words.value.version(room.value.version)}</span>
      </footer>
    </Dialog>
  );
}

function OwnName() {
  const [name, setName] = useState(ownName.value ?? "");
  // By its key a message is one only together with the name under which it was said.
  const opened = conversation.value;
  const waits = opened?.state.value !== "open" || !opened.outbox.isEmpty || threadsWaiting(OPEN_PLACE).length > 0;
  const wanted = name.trim();
  const isUnfit = wanted !== "" && !isName(wanted);
  const hint = useId();

  function change(event: Event): void {
    event.preventDefault();
    if (!isName(wanted) || waits) return;
    ownName.value = wanted;
    setName(wanted);
    toast.value = words.value.saved;
    closeDialog();
  }

  return (
    <form onSubmit={change}>
      <div class="row">
        <label>
          {words.value.yourName}
          <input
            value={name}
            maxLength={LONGEST_NAME}
            autocomplete="nickname"
            disabled={waits}
            aria-invalid={isUnfit}
            aria-describedby={hint}
            onInput={(event) => setName(event.currentTarget.value)}
          />
        </label>
        <button type="submit" disabled={waits || !isName(wanted) || wanted === ownName.value}>
          {words.value.save}
        </button>
      </div>
      <p id={hint} class={isUnfit ? "error" : "hint"} role="status">
        {waits ? words.value.nameWaits : isUnfit ? words.value.nameUnfit : words.value.nameHint}
      </p>
    </form>
  );
}

function Account() {
  const name = who.value?.name;
  async function leave(): Promise<void> {
    const { value: mine } = place;
    closeDialog();
    isEnding.value = true; // at once, however long the room takes to answer
    forgetDrafts(mine);
    await signOut().catch(() => undefined); // forgotten here in any case
    forgetDrafts(mine); // what was typed in another page meanwhile
  }
  return (
    <div class="stack">
      <div class="row account">
        <strong>
          {name && words.value.signedInAs(name, room.value?.several_tenants ? who.value?.tenant : undefined)}
        </strong>
        <button type="button" onClick={leave}>
          {words.value.signOut}
        </button>
      </div>
      <details>
        <summary>{words.value.changePassword}</summary>
        <ChangePassword name={name ?? ""} />
      </details>
    </div>
  );
}

function ChangePassword({ name }: { name: string }) {
  const [password, setPassword] = useState("");
  const [newPassword, setNewPassword] = useState("");
  const [isChanged, setChanged] = useState(false);
  const [refusal, setRefusal] = useState<Why | undefined>(undefined);
  const changing = useAttempt();

  async function change(event: Event): Promise<void> {
    event.preventDefault();
    setChanged(false);
    const refused = refusalOfNew(newPassword, password);
    setRefusal(() => refused);
    if (refused !== undefined) return;
    await changing.attempt(async () => {
      await changePassword(password, newPassword);
      setChanged(true);
      setPassword("");
      setNewPassword("");
    });
  }

  return (
    <form onSubmit={change}>
      {/* for what keeps passwords: whose it is */}
      <input type="text" name="username" autocomplete="username" value={name} readOnly hidden />
      <PasswordField label={words.value.password} value={password} change={setPassword} />
      <PasswordField label={words.value.newPassword} value={newPassword} change={setNewPassword} isNew />
      <Refusal of={refusal ?? changing.problem} />
      {isChanged && (
        <p class="good" role="status">
          {words.value.passwordChanged}
        </p>
      )}
      <div class="actions">
        <Button type="submit" isBusy={changing.isBusy}>
          {words.value.changePassword}
        </Button>
      </div>
    </form>
  );
}
