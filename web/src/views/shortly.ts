import { cut } from "../cutting";
import { inOneLine } from "../markdown";
import type { Said } from "../thread/timeline";

/** So many characters of what was said, in one line: of programs as it came, of others without Markdown. */
export const shortly = ({ lane, content }: Pick<Said, "lane" | "content">, most: number): string =>
  cut(lane === "api" ? content.trim().replace(/\s+/g, " ") : inOneLine(content), most);
