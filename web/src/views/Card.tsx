import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { asProblem, type Problem } from "../api";
import { words } from "../words";
import { Button } from "./Button";
import { Mark } from "./Mark";
import { Refusal, type Why } from "./Refusal";

/** A form for whoever is not in the room yet. `send` rejects with Problem, or tells why there is nothing to be sent. */
export function Card(props: {
  intro: string;
  verb: string;
  busy: [boolean, (isBusy: boolean) => void];
  send: () => Promise<Why | undefined>;
  refusalOf: (problem: Problem) => Why | undefined;
  /** The way to another card. */
  other: ComponentChildren;
  children: ComponentChildren;
}) {
  const [isBusy, setBusy] = props.busy;
  const [refusal, setRefusal] = useState<Why | undefined>(undefined);

  async function send(event: Event): Promise<void> {
    event.preventDefault();
    setBusy(true);
    setRefusal(undefined); // the same once more is told anew
    const why = await props.send().catch((error: unknown) => props.refusalOf(asProblem(error)));
    setRefusal(() => why);
    setBusy(false);
  }

  return (
    <form class="card" aria-label={props.verb} onSubmit={send}>
      <header>
        <Mark />
        <h1>{words.value.room}</h1>
        <p class="hint">{props.intro}</p>
        {props.other}
      </header>
      {props.children}
      <Refusal of={refusal} />
      <Button class="primary" type="submit" isBusy={isBusy}>
        {props.verb}
      </Button>
    </form>
  );
}
