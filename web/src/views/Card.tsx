import type { ComponentChildren } from "preact";
import { words } from "../words";
import { Mark } from "./Mark";
import { Refusal } from "./Refusal";

/** A form for whoever is not in the room yet. */
export function Card(props: {
  intro: string;
  verb: string;
  refusal: string | undefined;
  isBusy: boolean;
  send: () => Promise<void>;
  children: ComponentChildren;
}) {
  function submit(event: Event): void {
    event.preventDefault();
    void props.send();
  }
  return (
    <form class="card" aria-labelledby="sign-in" onSubmit={submit}>
      <header>
        <Mark />
        <h1 id="sign-in">{words.value.room}</h1>
        <p class="hint">{props.intro}</p>
      </header>
      {props.children}
      <Refusal of={props.refusal} />
      <button class="primary" type="submit" disabled={props.isBusy} aria-busy={props.isBusy}>
        {props.verb}
      </button>
    </form>
  );
}

/** Of an account. */
export function NameField(props: {
  value: string;
  change: (value: string) => void;
  hint?: string;
  isFixed?: boolean;
  takesFocus?: boolean;
}) {
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

export const focus = (field: HTMLInputElement | null): void => field?.focus();
