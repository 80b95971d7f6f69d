import { useState } from "preact/hooks";
import { asProblem, type Problem, signIn } from "../api";
import { isInvited, room } from "../app";
import { sentenceOf, words } from "../words";
import { LanguageChoice } from "./LanguageChoice";
import { Mark } from "./Mark";
import { PasswordField, refusalOfNew } from "./PasswordField";
import { Refusal } from "./Refusal";

/** What is seen of a room that asks who comes in. An invitation in the address stays there, to be taken up after it. */
export function SignIn() {
  const [tenant, setTenant] = useState("");
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [newPassword, setNewPassword] = useState("");
  const [isOneTime, setOneTime] = useState(false);
  const [isBusy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState<string | undefined>(undefined);

  async function send(event: Event): Promise<void> {
    event.preventDefault();
    const refused = isOneTime ? refusalOfNew(newPassword, password) : undefined;
    setRefusal(refused);
    if (refused !== undefined) return;
    setBusy(true);
    try {
      await signIn({
        ...(tenant.trim() && { tenant: tenant.trim() }),
        name: name.trim(),
        password,
        ...(isOneTime && { new_password: newPassword }),
      });
    } catch (error) {
      const problem = asProblem(error);
      if (problem.code === "password_change_needed") setOneTime(true);
      else setRefusal(refusalOf(problem));
      if (problem.code === "not_signed_in") setOneTime(false);
    }
    setBusy(false);
  }

  return (
    <main class="sign-in">
      <div class="corner">
        <LanguageChoice isPlain />
      </div>
      <form class="card" aria-labelledby="sign-in" onSubmit={send}>
        <header>
          <Mark />
          <h1 id="sign-in">{words.value.room}</h1>
          <p class="hint">{isInvited() ? words.value.signInForInvite : words.value.signInIntro}</p>
        </header>
        {room.value?.several_tenants && (
          <label>
            {words.value.tenant}
            <input
              name="tenant"
              autocomplete="organization"
              autocapitalize="none"
              spellcheck={false}
              readOnly={isOneTime}
              value={tenant}
              onInput={(event) => setTenant(event.currentTarget.value)}
            />
            <small>{words.value.tenantHint}</small>
          </label>
        )}
        <label>
          {words.value.name}
          <input
            name="username"
            autocomplete="username"
            autocapitalize="none"
            spellcheck={false}
            maxLength={256}
            readOnly={isOneTime}
            value={name}
            onInput={(event) => setName(event.currentTarget.value)}
            required
          />
        </label>
        <PasswordField label={words.value.password} value={password} change={setPassword} />
        {isOneTime && (
          <>
            <p class="hint" role="status">
              {words.value.newPasswordNeeded}
            </p>
            <PasswordField
              label={words.value.newPassword}
              value={newPassword}
              change={setNewPassword}
              isNew
              takesFocus
            />
          </>
        )}
        <Refusal of={refusal} />
        <button class="primary" type="submit" disabled={isBusy} aria-busy={isBusy}>
          {words.value.signIn}
        </button>
      </form>
    </main>
  );
}

const refusalOf = (problem: Problem): string =>
  problem.code === "not_signed_in" ? words.value.wrongLogin : sentenceOf(problem);
