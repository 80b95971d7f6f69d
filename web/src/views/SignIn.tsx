import { useState } from "preact/hooks";
import { asProblem, type Problem, signIn } from "../api";
import { inviteInAddress, room } from "../app";
import { sentenceOf, words } from "../words";
import { Card, NameField } from "./Card";
import { LanguageChoice } from "./LanguageChoice";
import { PasswordField, refusalOfNew } from "./PasswordField";
import { SignUp } from "./SignUp";

/** What is seen of a room that asks who comes in. An invitation in the address stays there, to be taken up after it. */
export function SignIn() {
  const invite = inviteInAddress();
  const [isNew, setNew] = useState(false);
  return (
    <main class="sign-in">
      <div class="corner">
        <LanguageChoice isPlain />
      </div>
      {invite !== null && isNew ? <SignUp invite={invite} /> : <SignInForm isInvited={invite !== null} />}
      {invite !== null && room.value?.sign_up && (
        <button type="button" class="link" onClick={() => setNew(!isNew)}>
          {isNew ? words.value.haveAccount : words.value.haveNoAccount}
        </button>
      )}
    </main>
  );
}

function SignInForm({ isInvited }: { isInvited: boolean }) {
  const [tenant, setTenant] = useState("");
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [newPassword, setNewPassword] = useState("");
  const [isOneTime, setOneTime] = useState(false);
  const [isBusy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState<string | undefined>(undefined);

  async function send(): Promise<void> {
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
    <Card
      intro={isInvited ? words.value.signInForInvite : words.value.signInIntro}
      verb={words.value.signIn}
      refusal={refusal}
      isBusy={isBusy}
      send={send}
    >
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
      <NameField value={name} change={setName} isFixed={isOneTime} />
      <PasswordField label={words.value.password} value={password} change={setPassword} />
      {isOneTime && (
        <>
          <p class="hint" role="status">
            {words.value.newPasswordNeeded}
          </p>
          <PasswordField label={words.value.newPassword} value={newPassword} change={setNewPassword} isNew takesFocus />
        </>
      )}
    </Card>
  );
}

const refusalOf = (problem: Problem): string =>
  problem.code === "not_signed_in" ? words.value.wrongLogin : sentenceOf(problem);
