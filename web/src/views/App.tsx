import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect } from "preact/hooks";
import {
  conversation,
  dialog,
  type Invited,
  invited,
  isEnding,
  needsSignIn,
  room,
  threadId,
  toast,
  trouble,
} from "../app";
import { goTo } from "../goal";
import { words } from "../words";
import { Announcer } from "./Announcer";
import { Dialogs } from "./dialogs/Dialogs";
import { COMPOSER, toThreadsButton } from "./keyboard";
import { SideBar } from "./SideBar";
import { SignIn } from "./SignIn";
import { SkipLink } from "./SkipLink";
import { ThreadView } from "./ThreadView";
import { Title } from "./Title";

/** Milliseconds for which a sentence is shown that needs no answer, and for each of its characters, to read it. */
const TOLD = 4_000;
const READ = 80;

export function App() {
  const showsThreads = useSignal(false);
  useEffect(() => {
    const result = invited.value;
    if (result) toast.value = sentence(result);
  }, [invited.value]);
  useLayoutEffect(() => {
    showsThreads.value = false; // once one has gone where one wanted
  }, [threadId.value, dialog.value]);
  useLayoutEffect(() => {
    if (!showsThreads.value) return;
    // where Escape is heard; not scrolled to, since it still slides in
    document.querySelector<HTMLElement>(".side header button")?.focus({ preventScroll: true });
  }, [showsThreads.value]);
  if (!room.value || isEnding.value) return <Waiting />;
  if (needsSignIn.value) return <SignIn />;
  const opened = conversation.value;
  return (
    <div class={`app${showsThreads.value ? " shows-threads" : ""}`}>
      <SkipLink to={COMPOSER} text={words.value.skip} />
      <SideBar
        close={() => {
          showsThreads.value = false;
          toThreadsButton();
        }}
      />
      {opened ? (
        <ThreadView
          key={opened.id}
          conversation={opened}
          showThreads={() => {
            showsThreads.value = true;
          }}
        />
      ) : (
        <Waiting />
      )}
      {opened && <Announcer key={opened.id} conversation={opened} />}
      {opened && <Title key={opened.id} conversation={opened} />}
      <Dialogs goTo={(messageId) => void goTo(messageId)} />
      <Toast />
    </div>
  );
}

function sentence(result: Invited): string {
  if ("accepted" in result) return words.value.invited(result.accepted);
  return "elsewhere" in result ? words.value.inviteElsewhere(result.elsewhere) : words.value.inviteBad;
}

function Waiting() {
  const shown = useSignal(false);
  useEffect(() => {
    const late = setTimeout(() => {
      shown.value = true;
    }, 400);
    return () => clearTimeout(late);
  }, []);
  return (
    <main class="no-room">
      <p role="status">{shown.value && (trouble.value ? words.value.unreachable : words.value.states.connecting)}</p>
    </main>
  );
}

function Toast() {
  const told = toast.value;
  useEffect(() => {
    if (told === undefined) return;
    const over = setTimeout(
      () => {
        toast.value = undefined;
      },
      TOLD + told.length * READ,
    );
    return () => clearTimeout(over);
  }, [told]);
  return (
    <p class="toast" role="status">
      {told}
    </p>
  );
}
