import { useId } from "preact/hooks";

/** One of a few, all of which are seen. */
export function Choice<T extends string>(props: {
  label: string;
  /** Whether the label is only for who listens to the page. */
  isPlain?: boolean;
  options: readonly (readonly [value: T, text: string])[];
  value: T | undefined;
  choose: (value: T) => void;
  disabled?: boolean;
}) {
  const name = useId();
  return (
    <fieldset class="choice" disabled={props.disabled ?? false}>
      <legend class={props.isPlain ? "seldom" : ""}>{props.label}</legend>
      <div>
        {props.options.map(([value, text]) => (
          <label key={value}>
            <input
              type="radio"
              name={name}
              value={value}
              checked={value === props.value}
              onChange={() => props.choose(value)}
            />
            <span>{text}</span>
          </label>
        ))}
      </div>
    </fieldset>
  );
}
