const main = document.querySelector("main");
const input = document.querySelector("#file");
const status = document.querySelector("#status");
const problem = document.querySelector("#error");
const answers = document.querySelector("#answers");
const SMALL = 300; // pixels; a picture of fewer is enlarged with its pixels visible
let current = null; // the question whose answer is awaited

/** An element with properties and children; text is never read as HTML. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function say(text, { busy = false, error = "" } = {}) {
  status.textContent = text;
  problem.textContent = error;
  document.body.classList.toggle("busy", busy);
  answers.setAttribute("aria-busy", busy);
}

/** Send a picture's file; the answer comes after lines that say how far it is. */
async function ask(file) {
  current?.abort();
  const mine = (current = new AbortController());
  const name = file.name || "the picture";
  try {
    if (file.size > Number(main.dataset.mostBytes)) throw new Error(main.dataset.tooLarge);
    say(`Sending ${name} ...`, { busy: true });
    const response = await fetch("predict", { method: "POST", body: file, signal: mine.signal });
    for await (const line of lines(response)) {
      if (line.error) throw new Error(line.error);
      if (line.state === "waiting") {
        say(`${name} waits: another picture is being worked on.`, { busy: true });
      } else if (line.state === "working") {
        say(`Working on ${name} ...`, { busy: true });
      } else {
        show(line, name);
      }
    }
  } catch (error) {
    if (mine.signal.aborted) return; // another picture was given meanwhile
    const lost = error instanceof TypeError;
    const reason = lost ? "the demo does not answer. Does mtlkit demo still run?" : error.message;
    answers.replaceChildren();
    say("", { error: `${name}: ${reason}` });
  }
}

/** The JSON of each line, as it arrives. */
async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    text += value;
    const complete = text.split("\n");
    text = complete.pop();
    yield* complete.map(JSON.parse);
  }
  if (text) yield JSON.parse(text);
}

function show(answer, name) {
  const { width, height, tasks } = answer;
  const small = Math.max(width, height) < SMALL;
  const given = make("article", {}, make("h2", { textContent: "Your picture" }));
  given.append(picture(answer.picture, "The picture that was given", small));
  given.append(facts([
    { name: "file", text: name },
    { name: "size", text: `${width} × ${height} pixels` },
  ]));
  answers.replaceChildren(given, ...tasks.map((task) => card(task, small)));
  const seconds = (value) => `${value.toFixed(2)} s`;
  const number = `${tasks.length} answer${tasks.length === 1 ? "" : "s"}`;
  say(`${number} in ${seconds(answer.seconds)}, of which the network took ${seconds(answer.network)}.`);
}

function card(answer, small) {
  const article = make("article", {}, make("h2", { textContent: answer.task }));
  if (answer.error) {
    article.append(make("p", { className: "failed", textContent: `No answer: ${answer.error}` }));
    return article;
  }
  article.append(picture(answer.drawn, `The answer of ${answer.task}, drawn`, small));
  article.append(...answer.shares.map(shares));
  for (const { name, picture: url } of answer.pictures) {
    article.append(make("h3", { textContent: name }), picture(url, `${answer.task}: ${name}`, small));
  }
  if (answer.facts.length) article.append(facts(answer.facts));
  return article;
}

function picture(url, alt, small) {
  return make("figure", {}, make("img", { src: url, alt, className: small ? "small" : "" }));
}

function shares({ name, rows, more }) {
  const list = make("ul", { className: "shares" }, ...rows.map(share));
  const box = make("div", {}, make("h3", { textContent: name }), list);
  if (more) box.append(make("p", { className: "more", textContent: `and ${more} more` }));
  return box;
}

function share({ name, share, colour }) {
  const label = make("span", { className: "label" });
  const filled = make("span");
  filled.style.width = `${100 * share}%`;
  if (colour) {
    const swatch = make("span", { className: "swatch" });
    swatch.style.background = filled.style.background = colour;
    label.append(swatch);
  }
  label.append(name);
  const number = make("span", { className: "number", textContent: percent(share) });
  return make("li", {}, label, make("span", { className: "bar" }, filled), number);
}

function percent(share) {
  return share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
}

function facts(rows) {
  const terms = rows.flatMap(({ name, text }) => [
    make("dt", { textContent: name }),
    make("dd", { textContent: text }),
  ]);
  return make("dl", {}, ...terms);
}

/** The first file of what was dropped or pasted. */
function take(transfer) {
  const [file] = transfer?.files ?? [];
  if (file) ask(file);
  else say("", { error: "That was no picture file. Save the picture first, then give the file." });
}

input.addEventListener("change", () => {
  if (input.files.length) ask(input.files[0]);
  input.value = ""; // so that the same file can be chosen again
});
addEventListener("paste", (event) => take(event.clipboardData));
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
addEventListener("drop", (event) => {
  event.preventDefault(); // the browser would leave the page for the file
  document.body.classList.remove("dragging");
  take(event.dataTransfer);
});
