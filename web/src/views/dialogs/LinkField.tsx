import { words } from "../../words";
import { CopyButton } from "../CopyButton";

export function LinkField(props: { label: string; link: string }) {
  return (
    <div class="row">
      <label>
        {props.label}
        <input readOnly value={props.link} onFocus={(event) => event.currentTarget.select()} />
      </label>
      <CopyButton content={props.link} text={words.value.copyLink} />
    </div>
  );
}
