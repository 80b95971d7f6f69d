import { words } from "../words";
import type { Why } from "./Refusal";

/** Characters of a password that somebody chooses. */
const SHORTEST = 8;
const LONGEST = 256;

/** Why the new password cannot be taken for the old one, if that is so. */
export function refusalOfNew(newPassword: string, password = ""): Why | undefined {
  const { length } = [...newPassword];
  if (length < SHORTEST || length > LONGEST) return () => words.value.passwordLength;
  return newPassword === password ? () => words.value.samePassword : undefined;
}

interface Field {
  value: string;
  change: (value: string) => void;
  takesFocus?: boolean;
}

/** Of an account. */
export function NameField(props: Field & { hint?: string; isFixed?: boolean }) {
  return (
    <label>
      {words.value.name}
      <input
        name="username"
        autocomplete="username"
        autocapitalize="none"
        spellcheck={false}
        maxLength={256}
        readOnly={props.isFixed}
        value={props.value}
        onInput={(event) => props.change(event.currentTarget.value)}
        ref={props.takesFocus ? focus : null}
        required
      />
      {props.hint && <small>{props.hint}</small>}
    </label>
  );
}

/** `isNew`: it is being chosen, and the browser may offer one. */
export function PasswordField(props: Field & { label: string; isNew?: boolean }) {
  return (
    <label>
      {props.label}
      <input
        type="password"
        name={props.isNew ? "new-password" : "password"}
        autocomplete={props.isNew ? "new-password" : "current-password"}
        value={props.value}
        onInput={(event) => props.change(event.currentTarget.value)}
        ref={props.takesFocus ? focus : null}
        required
      />
      {props.isNew && <small>{words.value.passwordLength}</small>}
    </label>
  );
}

export const focus = (field: HTMLInputElement | null): void => field?.focus();
