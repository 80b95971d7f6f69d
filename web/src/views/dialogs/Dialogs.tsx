import { type DialogName, dialog, threadId } from "../../app";
import { Demo } from "./Demo";
import { Members } from "./Members";
import { NewThread } from "./NewThread";
import { Preferences } from "./Preferences";
import { Search } from "./Search";
import { Settings } from "./Settings";

interface OpenedProps {
  name: DialogName;
  goTo: (messageId: string) => void;
}

/** The window that is open, if one is. It is of one thread: where that changes below it, as by the browser's Back, it
 * begins anew. */
export function Dialogs({ goTo }: { goTo: OpenedProps["goTo"] }) {
  const name = dialog.value;
  return name && <Opened key={`${name} ${threadId.value}`} name={name} goTo={goTo} />;
}

function Opened({ name, goTo }: OpenedProps) {
  switch (name) {
    case "settings":
      return <Settings />;
    case "members":
      return <Members />;
    case "search":
      return <Search goTo={goTo} />;
    case "preferences":
      return <Preferences />;
    case "new-thread":
      return <NewThread />;
    case "demo":
      return <Demo />;
  }
}
