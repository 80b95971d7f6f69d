import { useId, useState } from "preact/hooks";
import { makeThread } from "../../api";
import { closeDialog, openThread, room, who } from "../../app";
import { someThread } from "../../names";
import type { ThreadInList } from "../../wire";
import { words } from "../../words";
import { Button } from "../Button";
import { Choice } from "../Choice";
import { Dialog } from "../Dialog";
import { Refusal, useAttempt } from "../Refusal";

/** What threads are called, as m3/events.py has it. */
const NAME = /^[A-Za-z0-9_:@-]{1,128}$/;

/** In an open room a thread is made by being used; elsewhere it is asked for, and is given its name. */
export function NewThread() {
  const isOpenRoom = room.value?.auth === "open";
  const isNamed = isOpenRoom || who.value?.kind === "operator";
  const [name, setName] = useState(isOpenRoom ? someThread : "");
  const [visibility, setVisibility] = useState<ThreadInList["visibility"]>("private");
  const [isWrong, setWrong] = useState(false);
  const making = useAttempt();
  const hint = useId();

  async function create(event: Event): Promise<void> {
    event.preventDefault();
    const id = name.trim();
    if (isNamed && !NAME.test(id) && (isOpenRoom || id !== "")) {
      setWrong(true);
      return;
    }
    let made = id;
    const worked = await making.attempt(async () => {
      if (!isOpenRoom) made = (await makeThread({ visibility, ...(id && { thread_id: id }) })).thread_id;
    });
    if (!worked) return;
    closeDialog();
    openThread(made);
  }

  return (
    <Dialog title={words.value.newThread} close={closeDialog}>
      <form onSubmit={create} noValidate>
        {isNamed ? (
          <label>
            {words.value.threadName}
            <input
              value={name}
              maxLength={128}
              autocapitalize="none"
              spellcheck={false}
              autofocus
              onFocus={(event) => event.currentTarget.select()} // it is given, and typed over
              aria-invalid={isWrong}
              aria-describedby={hint}
              onInput={(event) => {
                setName(event.currentTarget.value);
                setWrong(false);
              }}
            />
            <small id={hint} class={isWrong ? "wrong" : ""} role={isWrong ? "alert" : undefined}>
              {words.value.threadNameHint}
              {!isOpenRoom && !isWrong && <> {words.value.threadNameMayBe}</>}
            </small>
          </label>
        ) : (
          <p class="hint">{words.value.threadNameGiven}</p>
        )}
        {!isOpenRoom && (
          <Choice
            label={words.value.visibility}
            value={visibility}
            choose={setVisibility}
            options={[
              ["private", words.value.visibilities.private],
              ["open", words.value.visibilities.open],
            ]}
          />
        )}
        <Refusal of={making.problem} />
        <div class="actions">
          {isOpenRoom && (
            <button
              type="button"
              onClick={() => {
                setName(someThread());
                setWrong(false);
              }}
            >
              {words.value.anotherName}
            </button>
          )}
          <Button class="primary" type="submit" isBusy={making.isBusy}>
            {words.value.create}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
