import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "../../api";
import {
  addressOf,
  closeDialog,
  DEFAULT_THREAD,
  mayConfigure,
  name,
  openThread,
  role,
  room,
  threadId,
} from "../../app";
import { listed, lookAtThreads } from "../../threads";
import type { Member, Role, ThreadInList } from "../../wire";
import { words } from "../../words";
import { Avatar } from "../Avatar";
import { Button } from "../Button";
import { Choice } from "../Choice";
import { Dialog } from "../Dialog";
import { Refusal, useAttempt } from "../Refusal";
import { Invites } from "./Invites";
import { LinkField } from "./LinkField";
import { SureButton } from "./SureButton";

/** What a person can be in a thread. */
const ROLES: readonly Role[] = ["owner", "member", "reader"];

/** Who is in the thread, and who else may come. */
export function Members() {
  return room.value?.auth === "open" ? <Share /> : <Admitted />;
}

function Share() {
  return (
    <Dialog title={words.value.share} close={closeDialog}>
      <Link />
      <p class="hint">{words.value.shareHint}</p>
    </Dialog>
  );
}

const Link = () => <LinkField label={words.value.link} link={`${location.origin}${addressOf(threadId.value)}`} />;

function Admitted() {
  const thread = threadId.value;
  const visibility = listed.value.find((one) => one.threadId === thread)?.visibility;
  /** Everybody with an account is in an open thread, and those who are members of it are not told to the others. */
  const isGuest = role.value === null && !mayConfigure.value;
  return (
    <Dialog title={words.value.members} close={closeDialog}>
      {isGuest ? <p class="hint">{words.value.everybodyMay}</p> : <List thread={thread} />}
      {mayConfigure.value && <Visibility thread={thread} visibility={visibility} />}
      {visibility === "open" && <Link />}
      {mayConfigure.value && <Invites thread={thread} />}
      {role.value && <Leave thread={thread} />}
    </Dialog>
  );
}

function List({ thread }: { thread: string }) {
  const [members, setMembers] = useState<readonly Member[]>([]);
  const [isSaved, setSaved] = useState(false);
  const { isBusy, problem, attempt } = useAttempt();
  const look = async () => {
    setMembers(await api.members(thread));
    void lookAtThreads(); // what one is oneself may be another now
  };
  const change = async (work: () => Promise<unknown>) => {
    setSaved(false);
    const worked = await attempt(async () => {
      try {
        await work();
      } catch (refusal) {
        if (!api.asProblem(refusal).passes) await look().catch(() => undefined); // what others changed may be why
        throw refusal;
      }
      await look();
    });
    setSaved(worked);
    return worked;
  };
  useEffect(() => void attempt(look), [thread]);
  return (
    <section class="stack">
      <Refusal of={problem} />
      <Saved is={isSaved} />
      <ul class="plain members">
        {members.map((member) => (
          <li key={`${member.kind} ${member.name}`}>
            <Avatar lane={member.kind === "program" ? "api" : "user"} name={member.name} />
            <span>
              {member.name}
              {isOneself(member) && <small> {words.value.you}</small>}
            </span>
            {mayConfigure.value && member.kind === "person" ? (
              <RoleField
                member={member}
                isBusy={isBusy}
                choose={() => setSaved(false)}
                give={(role) => change(() => api.changeRole(thread, member.name, role))}
              />
            ) : (
              <small>{words.value.roles[member.role]}</small>
            )}
            {mayConfigure.value && !isOneself(member) && (
              <SureButton
                text={words.value.remove}
                label={words.value.removeMember(member.name)}
                isBusy={isBusy}
                act={() => void change(() => api.dismiss(thread, member))}
              />
            )}
          </li>
        ))}
      </ul>
      {mayConfigure.value && <Add isBusy={isBusy} add={(name, role) => change(() => api.admit(thread, name, role))} />}
    </section>
  );
}

/** Said in the window itself: what is beside it nobody sees or hears. */
const Saved = ({ is }: { is: boolean }) => (
  <p class="good" role="status">
    {is && words.value.saved}
  </p>
);

const isOneself = (member: Member): boolean => member.kind === "person" && member.name === name.value;

interface RoleFieldProps {
  member: Member;
  isBusy: boolean;
  choose: () => void;
  give: (role: Role) => Promise<boolean>;
}

/** A key in it is pressed by a slip, so what is chosen is only so once that is saved. */
function RoleField({ member, isBusy, choose, give }: RoleFieldProps) {
  const [chosen, setChosen] = useState(member.role);
  const field = useRef<HTMLSelectElement>(null);
  const { giveOwnership, giveUpOwnership, roles, role, save, told } = words.value;
  useEffect(() => setChosen(member.role), [member.role]);
  const warning = chosen === "owner" ? giveOwnership : isOneself(member) ? giveUpOwnership : undefined;
  return (
    <>
      <select
        ref={field}
        aria-label={told(role, member.name)}
        value={chosen}
        onChange={(event) => {
          choose();
          setChosen(event.currentTarget.value as Role);
        }}
      >
        <RoleOptions />
      </select>
      {chosen !== member.role && (
        <>
          <Button
            isBusy={isBusy}
            aria-label={`${save}: ${told(member.name, roles[chosen])}`}
            onClick={() => {
              field.current?.focus(); // since the button goes
              void give(chosen);
            }}
          >
            {save}
          </Button>
          {warning && (
            <p class="hint" role="alert">
              {warning}
            </p>
          )}
        </>
      )}
    </>
  );
}

const RoleOptions = () => (
  <>
    {ROLES.map((one) => (
      <option key={one} value={one}>
        {words.value.roles[one]}
      </option>
    ))}
  </>
);

function Add(props: { isBusy: boolean; add: (name: string, role: Role) => Promise<boolean> }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("member");
  return (
    <form
      class="row"
      aria-label={words.value.addMember}
      onSubmit={(event) => {
        event.preventDefault();
        if (name.trim()) void props.add(name.trim(), role).then((worked) => worked && setName(""));
      }}
    >
      <label>
        {words.value.addMember}
        <input
          placeholder={words.value.name}
          autocapitalize="none"
          autocomplete="off"
          spellcheck={false}
          maxLength={256}
          required
          pattern=".*\S.*"
          value={name}
          onInput={(event) => setName(event.currentTarget.value)}
        />
      </label>
      <label>
        {words.value.role}
        <select value={role} onChange={(event) => setRole(event.currentTarget.value as Role)}>
          <RoleOptions />
        </select>
      </label>
      <Button type="submit" isBusy={props.isBusy}>
        {words.value.add}
      </Button>
    </form>
  );
}

function Visibility(props: { thread: string; visibility: ThreadInList["visibility"] | undefined }) {
  const [chosen, setChosen] = useState<ThreadInList["visibility"] | undefined>(undefined);
  const { isBusy, problem, attempt } = useAttempt();
  const [isSaved, setSaved] = useState(false);
  async function change(event: Event): Promise<void> {
    event.preventDefault();
    setSaved(false);
    const worked = await attempt(async () => {
      if (chosen) await api.changeVisibility(props.thread, chosen);
      await lookAtThreads();
    });
    setSaved(worked);
  }
  return (
    <form aria-label={words.value.visibility} onSubmit={change}>
      <Choice
        label={words.value.visibility}
        value={chosen ?? props.visibility}
        choose={(one) => {
          setSaved(false);
          setChosen(one);
        }}
        options={[
          ["private", words.value.visibilities.private],
          ["open", words.value.visibilities.open],
        ]}
      />
      <Refusal of={problem} />
      <Saved is={isSaved} />
      <div class="actions">
        <Button type="submit" isBusy={isBusy}>
          {words.value.save}
        </Button>
      </div>
    </form>
  );
}

function Leave({ thread }: { thread: string }) {
  const { isBusy, problem, attempt } = useAttempt();
  const leave = () =>
    attempt(() => api.dismiss(thread, { name: name.value ?? "", kind: "person" })).then((worked) => {
      if (!worked) return;
      closeDialog();
      openThread(DEFAULT_THREAD);
      void lookAtThreads();
    });
  return (
    <div class="actions">
      <Refusal of={problem} />
      <SureButton text={words.value.leave} isBusy={isBusy} act={() => void leave()} />
    </div>
  );
}
