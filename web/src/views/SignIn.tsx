import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { type Problem, signIn } from "../api";
import { inviteInAddress, likelyTenant, room, signUp } from "../app";
import { words } from "../words";
import { Card } from "./Card";
import { focus, NameField, PasswordField, refusalOfNew } from "./fields";
import { LanguageChoice } from "./LanguageChoice";
import type { Why } from "./Refusal";

interface Entering {
  name: [string, (name: string) => void];
  busy: [boolean, (isBusy: boolean) => void];
  other: ComponentChildren;
  takesFocus: boolean;
}

/** What is seen of a room that asks who comes in. An invitation stays in the address, to be taken up after it. */
export function SignIn() {
  const name = useState("");
  const busy = useState(false);
  const [card, setCard] = useState<"first" | "in" | "up">("first");
  const invite = inviteInAddress.value;
  const mayBeNew = invite !== null && room.value?.sign_up === true;
  const isNew = mayBeNew && card === "up";
  const other = mayBeNew && (
    <button type="button" class="link" disabled={busy[0]} onClick={() => setCard(isNew ? "in" : "up")}>
      {isNew ? words.value.haveAccount : words.value.haveNoAccount}
    </button>
  );
  const takesFocus = card !== "first" || matchMedia("(pointer: fine)").matches;
  const entering = { name, busy, other, takesFocus };
  return (
    <main class="sign-in">
      <div class="corner">
        <LanguageChoice isPlain />
      </div>
      {isNew ? (
        <NewAccount {...entering} invite={invite} />
      ) : (
        // of another invitation the tenant may be another
        <Account key={invite ?? ""} {...entering} isInvited={invite !== null} />
      )}
    </main>
  );
}

function Account({ name: [name, setName], busy, other, takesFocus, isInvited }: Entering & { isInvited: boolean }) {
  const [tenant, setTenant] = useState(likelyTenant);
  const [beginsWithTenant] = useState(room.value?.several_tenants === true && tenant === "");
  const [password, setPassword] = useState("");
  const [newPassword, setNewPassword] = useState("");
  const [isOneTime, setOneTime] = useState(false);

  async function send(): Promise<Why | undefined> {
    const refused = isOneTime ? refusalOfNew(newPassword, password) : undefined;
    if (refused !== undefined) return refused;
    await signIn({
      ...(tenant.trim() && { tenant: tenant.trim() }),
      name: name.trim(),
      password,
      ...(isOneTime && { new_password: newPassword }),
    });
    return undefined;
  }

  function refusalOf(problem: Problem): Why | undefined {
    const asksForNew = problem.code === "password_change_needed";
    if (asksForNew || problem.code === "not_signed_in") setOneTime(asksForNew);
    if (asksForNew) return undefined;
    return problem.code === "not_signed_in" ? () => words.value.wrongLogin : problem;
  }

  return (
    <Card
      intro={isInvited ? words.value.signInForInvite : words.value.signInIntro}
      verb={words.value.signIn}
      busy={busy}
      other={other}
      send={send}
      refusalOf={refusalOf}
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
            ref={takesFocus && beginsWithTenant ? focus : null}
          />
          <small>{words.value.tenantHint}</small>
        </label>
      )}
      <NameField value={name} change={setName} isFixed={isOneTime} takesFocus={takesFocus && !beginsWithTenant} />
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

function NewAccount({ name: [name, setName], busy, other, takesFocus, invite }: Entering & { invite: string }) {
  const [password, setPassword] = useState("");

  async function send(): Promise<Why | undefined> {
    const refused = refusalOfNew(password);
    if (refused !== undefined) return refused;
    await signUp(invite, name.trim(), password);
    return undefined;
  }

  function refusalOf(problem: Problem): Why {
    if (problem.code === "taken") return () => words.value.accountNameTaken;
    if (problem.code === "not_found") return () => words.value.inviteBad;
    return problem.status === 422 ? () => words.value.accountNameUnfit : problem;
  }

  return (
    <Card
      intro={words.value.signUpIntro}
      verb={words.value.signUp}
      busy={busy}
      other={other}
      send={send}
      refusalOf={refusalOf}
    >
      <NameField value={name} change={setName} hint={words.value.accountNameHint} takesFocus={takesFocus} />
      <PasswordField label={words.value.password} value={password} change={setPassword} isNew />
    </Card>
  );
}
