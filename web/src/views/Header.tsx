import { type DialogName, dialog } from "../app";
import { shownLanes, view } from "../preferences";
import type { Conversation } from "../thread/conversation";
import { LANES, type Lane } from "../wire";
import { words } from "../words";
import { Icon, type IconName } from "./Icon";

/** Where one skips back to. */
export const TITLE = "thread";

export function Header({ conversation, showThreads }: { conversation: Conversation; showThreads: () => void }) {
  const { members, settings, search, showThreads: menu } = words.value;
  return (
    <header class="bar">
      <button type="button" class="icon only-narrow" aria-label={menu} onClick={showThreads}>
        <Icon name="menu" />
      </button>
      <div class="title">
        <h1 id={TITLE} tabIndex={-1}>
          {conversation.threadId}
        </h1>
        <State conversation={conversation} />
      </div>
      <Lanes />
      <div class="tools">
        <Opens name="search" icon="search" label={search} />
        <Opens name="members" icon="people" label={members} />
        <Opens name="settings" icon="settings" label={settings} />
      </div>
    </header>
  );
}

function Opens({ name, icon, label }: { name: DialogName; icon: IconName; label: string }) {
  return (
    <button
      type="button"
      class="icon"
      aria-label={label}
      title={label}
      onClick={() => {
        dialog.value = name;
      }}
    >
      <Icon name={icon} />
    </button>
  );
}

/** Whether what is shown is what is, and who else sees it. */
function State({ conversation }: { conversation: Conversation }) {
  const state = conversation.state.value;
  const presence = conversation.presence.value;
  return (
    <div class="state">
      <span class={`light ${state}`} role="status">
        {words.value.states[state]}
      </span>
      {presence && (
        <details class="here">
          <summary title={words.value.here(presence.connections)}>
            <Icon name="people" />
            <span aria-hidden="true">{presence.connections}</span>
            <span class="seldom">{words.value.here(presence.connections)}</span>
          </summary>
          <div class="popover">
            <p class="hint">{words.value.here(presence.connections)}</p>
            <ul class="plain">
              {presence.clients.map((name) => (
                <li key={name}>{name}</li>
              ))}
            </ul>
            {presence.more ? <p class="hint">{words.value.hereMore(presence.more)}</p> : null}
          </div>
        </details>
      )}
    </div>
  );
}

/** Which lanes are shown, and whether side by side. One is left always. */
function Lanes() {
  const { lanes, showLane, view: label, stream, sideBySide } = words.value;
  const shown = shownLanes.value;
  const toggle = (lane: Lane): void => {
    const wanted = LANES.filter((one) => (one === lane ? !shown.includes(one) : shown.includes(one)));
    if (wanted.length) shownLanes.value = wanted;
  };
  const isSideBySide = view.value === "lanes";
  return (
    <fieldset class="lanes" aria-label={label}>
      {LANES.map((lane) => (
        <button
          key={lane}
          type="button"
          class={`lane ${lane}`}
          aria-pressed={shown.includes(lane)}
          aria-label={showLane(lanes[lane])}
          title={showLane(lanes[lane])}
          onClick={() => toggle(lane)}
        >
          <i aria-hidden="true" />
          {lanes[lane]}
        </button>
      ))}
      <button
        type="button"
        class="icon"
        aria-pressed={isSideBySide}
        aria-label={sideBySide}
        title={isSideBySide ? stream : sideBySide}
        onClick={() => {
          view.value = isSideBySide ? "stream" : "lanes";
        }}
      >
        <Icon name="lanes" />
      </button>
    </fieldset>
  );
}
