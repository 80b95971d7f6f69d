import { useState } from "preact/hooks";
import { asProblem, type Problem, signUp } from "../api";
import { sentenceOf, words } from "../words";
import { Card, NameField } from "./Card";
import { PasswordField, refusalOfNew } from "./PasswordField";

/** For whoever is invited and has no account. The invitation stays in the address, to be taken up after it. */
export function SignUp({ invite }: { invite: string }) {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [isBusy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState<string | undefined>(undefined);

  async function send(): Promise<void> {
    const refused = refusalOfNew(password, "");
    setRefusal(refused);
    if (refused !== undefined) return;
    setBusy(true);
    try {
      await signUp({ invite, name: name.trim(), password });
    } catch (error) {
      setRefusal(refusalOf(asProblem(error)));
    }
    setBusy(false);
  }

  return (
    <Card intro={words.value.signUpIntro} verb={words.value.signUp} refusal={refusal} isBusy={isBusy} send={send}>
      <NameField value={name} change={setName} hint={words.value.accountNameHint} takesFocus />
      <PasswordField label={words.value.password} value={password} change={setPassword} isNew />
    </Card>
  );
}

function refusalOf(problem: Problem): string {
  if (problem.code === "taken") return words.value.accountNameTaken;
  if (problem.code === "not_found") return words.value.inviteBad;
  return problem.status === 422 ? words.value.accountNameUnfit : sentenceOf(problem);
}
