import { language } from "../preferences";
import { words } from "../words";
import { en } from "../words/en";
import { zh } from "../words/zh";
import { Choice } from "./Choice";

/** Each language is called what it calls itself. */
export function LanguageChoice({ isPlain = false }: { isPlain?: boolean }) {
  return (
    <Choice
      label={words.value.language}
      isPlain={isPlain}
      value={language.value}
      choose={(chosen) => {
        language.value = chosen;
      }}
      options={[
        ["en", en.languageName],
        ["zh-CN", zh.languageName],
      ]}
    />
  );
}
