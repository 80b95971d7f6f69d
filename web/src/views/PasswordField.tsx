import { words } from "../words";
import { focus } from "./Card";

/** Characters of a password that somebody chooses. */
const SHORTEST = 8;
const LONGEST = 256;

/** Why the new password cannot be taken for the old one, if that is so. */
export function refusalOfNew(newPassword: string, password: string): string | undefined {
  const { length } = [...newPassword];
  if (length < SHORTEST || length > LONGEST) return words.value.passwordLength;
  return newPassword === password ? words.value.samePassword : undefined;
}

/** `isNew`: it is being chosen, and the browser may offer one. */
export function PasswordField(props: {
  label: string;
  value: string;
  change: (value: string) => void;
  isNew?: boolean;
  takesFocus?: boolean;
}) {
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
