/** All windows, in one piece that is fetched when the first is opened. */
import type { DialogName } from "../../app";
import { Demo } from "./Demo";
import { Members } from "./Members";
import { NewThread } from "./NewThread";
import { Preferences } from "./Preferences";
import { Search } from "./Search";
import { Settings } from "./Settings";

export function Opened({ name, goTo }: { name: DialogName; goTo: (messageId: string) => void }) {
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
