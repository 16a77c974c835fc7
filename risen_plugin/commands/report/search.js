
"use strict";
(() => {
  const source = document.getElementById("answers-data");
  if (!source) return;
  const AT_ONCE = 30;
  const { rewards, answers } = JSON.parse(source.textContent);
  const [PHASE, STEP, FAMILY, PROMPT, COMPLETION, TOTAL, SCORES, MET] = [0, 1, 2, 3, 4, 5, 6, 7];
  const find = (name) => document.getElementById(`answers-${name}`);
  const [form, query, order, phase, family] =
    ["form", "query", "order", "phase", "family"].map(find);
  const [list, count, more] = ["list", "count", "more"].map(find);
  const texts = answers.map((a) => `${a[PROMPT]}\n${a[COMPLETION]}`.toLowerCase());
  let found = [];
  let shown = 0;

  // All text of answers goes through textContent: nothing in it is ever read as HTML.
  const element = (tag, name, text) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const marked = (name, text, words) => {
    const made = element("div", name);
    // In the text itself: its lower case may be longer, and places in it others.
    const sought = new RegExp(words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gi");
    let start = 0;
    for (const { 0: hit, index } of words ? text.matchAll(sought) : []) {
      made.append(text.slice(start, index));
      made.append(element("mark", "", hit));
      start = index + hit.length;
    }
    made.append(text.slice(start));
    return made;
  };

  const told = (score) => (score === null ? "abstained" : String(score));

  const item = (answer, words) => {
    const made = element("li");
    const place = [`phase ${answer[PHASE]}`, `step ${answer[STEP]}`, answer[FAMILY]];
    if (answer[TOTAL] !== null) place.push(`total ${answer[TOTAL]}`);
    made.append(element("div", "place", place.filter(Boolean).join(" · ")));
    made.append(marked("prompt", answer[PROMPT], words));
    made.append(marked("completion", answer[COMPLETION] || "(empty)", words));
    const scores = element("p", "scores");
    rewards.forEach((reward, number) => {
      const score = answer[SCORES][number];
      const failed = typeof score === "string";
      scores.append(element("span", failed ? "failed" : "", `${reward}: ${told(score)}`));
    });
    answer[MET].forEach(([id, met]) => {
      const sign = met === null ? "?" : met ? "✓" : "✗";
      scores.append(element("span", met ? "met" : "unmet", `${sign} ${id}`));
    });
    made.append(scores);
    return made;
  };

  const showMore = () => {
    const words = query.value.trim().toLowerCase();
    const part = found.slice(shown, shown + AT_ONCE);
    list.append(...part.map((number) => item(answers[number], words)));
    shown += part.length;
    more.hidden = shown >= found.length;
  };

  const search = () => {
    const words = query.value.trim().toLowerCase();
    const [end, reward] = order.value.split(":");
    const key = (answer) => (reward === undefined ? answer[TOTAL] : answer[SCORES][reward]);
    const sign = end === "best" ? -1 : 1;
    found = [];
    answers.forEach((answer, number) => {
      if (phase.value && String(answer[PHASE]) !== phase.value) return;
      if (family.value && answer[FAMILY] !== family.value) return;
      if (words && !texts[number].includes(words)) return;
      found.push(number);
    });
    found.sort((a, b) => {
      const [x, y] = [key(answers[a]), key(answers[b])];
      const [hasX, hasY] = [typeof x === "number", typeof y === "number"];
      if (!hasX || !hasY) return Number(hasY) - Number(hasX) || a - b;
      return sign * (x - y) || a - b;
    });
    list.replaceChildren();
    shown = 0;
    count.textContent = `${found.length.toLocaleString("en")} found`;
    showMore();
  };

  let waiting = 0;
  query.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, 120);
  });
  [order, phase, family].forEach((choice) => choice.addEventListener("change", search));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  more.addEventListener("click", showMore);
  search();
})();
