import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { closeDialog, dialog, toast } from "../../app";
import { words } from "../../words";

const all = signal<typeof import("./all") | undefined>(undefined);

/** The window that is open, if one is. */
export function Dialogs({ goTo }: { goTo: (messageId: string) => void }) {
  const name = dialog.value;
  const isWanted = name !== undefined && !all.value;
  useEffect(() => {
    if (!isWanted) return;
    import("./all").then(
      (fetched) => {
        all.value = fetched;
      },
      () => {
        // the room has been updated since the page was loaded, or is away
        toast.value = words.value.notFetched;
        closeDialog();
      },
    );
  }, [isWanted]);
  if (name === undefined || !all.value) return null;
  const { Opened } = all.value;
  return <Opened key={name} name={name} goTo={goTo} />;
}
