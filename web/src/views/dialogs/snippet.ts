/** The part of a message that was searched for, with the words marked as the room finds them (m3/sealing/terms.py): whole
 * words, whatever their case; of writing without spaces each two characters side by side. */

import { whole } from "../../cutting";

export interface Part {
  readonly text: string;
  readonly isMarked: boolean;
}

const DENSE =
  "\\p{Script=Han}\\p{Script=Hiragana}\\p{Script=Katakana}\\p{Script=Hangul}\\p{Script=Thai}\\p{Script=Lao}\\p{Script=Myanmar}\\p{Script=Khmer}";
const LETTER = `(?:(?![${DENSE}])[\\p{L}\\p{N}\\p{M}])`;
const WORD = new RegExp(`(?<dense>[${DENSE}]+)|${LETTER}+`, "gu");

/** Characters of a snippet, and of those what comes before the first marked word. */
const LENGTH = 180;
const BEFORE = 40;

export function snippet(content: string, query: string): Part[] {
  const text = content.replace(/\s+/g, " ").trim();
  const marks = marksIn(text, query);
  const first = marks[0]?.[0] ?? 0;
  const start = first > BEFORE ? whole(text, first - BEFORE) : 0;
  const end = whole(text, start + LENGTH);
  const parts: Part[] = [];
  const add = (from: number, to: number, isMarked: boolean) => {
    if (from < to) parts.push({ text: text.slice(from, to), isMarked });
  };
  if (start > 0) parts.push({ text: "…", isMarked: false });
  let place = start;
  for (const [from, to] of marks) {
    if (from >= end) break;
    add(place, from, false);
    add(from, Math.min(to, end), true);
    place = Math.min(to, end);
  }
  add(place, end, false);
  if (end < text.length) parts.push({ text: "…", isMarked: false });
  return parts;
}

/** Where the words are, in order and apart. */
function marksIn(text: string, query: string): [from: number, to: number][] {
  const wanted = new Set<string>();
  for (const found of query.normalize("NFKC").matchAll(WORD)) {
    const dense = found.groups?.dense;
    if (dense === undefined) wanted.add(`(?<!${LETTER})${found[0]}(?!${LETTER})`);
    else for (const pair of pairsOf(dense)) wanted.add(pair);
  }
  if (!wanted.size) return [];
  // each alone, for those of writing without spaces overlap
  const places = [...wanted].flatMap((word) =>
    Array.from(text.matchAll(new RegExp(word, "giu")), ({ index, 0: { length } }): [number, number] => [
      index,
      index + length,
    ]),
  );
  const marks: [number, number][] = [];
  for (const [from, to] of places.sort(([one], [other]) => one - other)) {
    const last = marks.at(-1);
    if (last && from <= last[1]) last[1] = Math.max(last[1], to);
    else marks.push([from, to]);
  }
  return marks;
}

function pairsOf(dense: string): string[] {
  const characters = [...dense];
  if (characters.length === 1) return characters;
  return characters.slice(1).map((character, place) => `${characters[place]}${character}`);
}
