/** What people and threads are called that nobody has named yet. */
import { language } from "./preferences";

const ENGLISH = [
  ["Amber", "Brave", "Calm", "Dusty", "Early", "Gentle", "Lucky", "Merry", "Quiet", "Rapid", "Silver", "Sunny"],
  ["Badger", "Crane", "Dolphin", "Falcon", "Finch", "Fox", "Hare", "Heron", "Lynx", "Otter", "Panda", "Robin"],
] as const;
const CHINESE = [
  ["安静的", "勇敢的", "早起的", "温柔的", "幸运的", "快乐的", "敏捷的", "银色的", "晴天的", "远方的"],
  ["白鹭", "海豚", "狐狸", "猫头鹰", "水獭", "熊猫", "知更鸟", "山猫", "仙鹤", "松鼠"],
] as const;

/** Two pages of one browser are one person; two browsers seldom get the same name. */
export function someName(): string {
  const [first, second] = language.value === "zh-CN" ? CHINESE : ENGLISH;
  const number = 10 + Math.floor(Math.random() * 90);
  return language.value === "zh-CN" ? `${any(first)}${any(second)}${number}` : `${any(first)} ${any(second)} ${number}`;
}

/** What a new thread may be called, until somebody has a better name for it. */
export function someThread(): string {
  const [first, second] = ENGLISH;
  return `${any(first)}-${any(second)}-${100 + Math.floor(Math.random() * 900)}`.toLowerCase();
}

const any = (words: readonly string[]): string => words[Math.floor(Math.random() * words.length)] as string;
