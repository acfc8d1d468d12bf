// Shows state.json, which it reads again every two seconds. Only what differs is touched, so that the place on the
// page, the focus and a selection stay. No value becomes HTML: texts are set as texts, and links only where `opens`
// says so.
"use strict";

const EVERY = 2000; // milliseconds from one answer to the next question
const PATIENCE = 5000; // for one answer
const VERSION = 1; // of state.json
const UNREACHED = "not reached";
const TICK = 1200; // how long a copy button says that it has copied
const DAY = 24 * 60 * 60 * 1000;

const byId = (id) => document.getElementById(id);
const part = (node, name) => node.querySelector(`.${name}`);

// ------------------------------------------------------------------------------------------------------------- texts

/** A text with its control characters spelled out: nothing breaks a line, turns the direction, or hides. */
const visible = (text) =>
  String(text).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]|^ +$/gu, (one) => `\\u{${one.codePointAt(0).toString(16)}}`);

const natural = new Intl.Collator("en", { numeric: true }).compare; // web-2 before web-10
const many = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
const opens = (url) => typeof url === "string" && /^https?:\/\/[^/]/i.test(url);

function since(then, now) {
  const minutes = Math.floor((Date.parse(now) - Date.parse(then)) / 60000);
  if (!(minutes >= 0)) return "";
  if (minutes < 1) return "just now";
  if (minutes < 60) return `for ${minutes} min`;
  return minutes < 48 * 60 ? `for ${Math.floor(minutes / 60)} h` : `for ${Math.floor(minutes / 60 / 24)} days`;
}

function until(expires, now) {
  const left = Date.parse(expires) - Date.parse(now);
  if (Number.isNaN(left)) return visible(expires);
  const day = expires.slice(0, 10);
  return left < 0 ? `expired on ${day}` : `until ${day} (${many(Math.floor(left / DAY), "day")})`;
}

// ------------------------------------------------------------------------------------------- what there is to be said

const obstacles = (container) => [...new Set(container.places.map((place) => place.obstacle))];
const isReached = (container) => container.places.some((place) => place.obstacle === null);

/** How a container is: one word, whether that is good, and why not. */
function verdict(container) {
  const { state, health, problem } = container;
  const obstacle = isReached(container) ? null : obstacles(container).join("; ") || "it is in no network";
  const word = state !== "running" ? state : obstacle ? UNREACHED : health ?? "running";
  const bad = state === "restarting" || health === "unhealthy";
  const good = (word === "running" || word === "healthy") && !problem;
  const kind = bad ? "bad" : good ? "good" : word === UNREACHED ? "off" : "fair";
  const unreached = obstacle && word !== UNREACHED ? `${UNREACHED}: ${obstacle}` : obstacle;
  return { kind, word, why: [unreached, problem].filter(Boolean).join("; ") };
}

/** What to call it: by what a browser opens, else by its service if that has no replicas, else by its first name. */
function called(container, group, domain) {
  if (opens(container.url)) return container.url.replace(/^https:\/\//i, "").replace(/\/$/, "");
  const ofService = hasReplicas(container, group) ? null : `${container.service}.${container.project}.${domain}`;
  return container.names.find((name) => name === ofService?.toLowerCase()) ?? container.names[0] ?? container.name;
}

const hasReplicas = ({ service }, group) => group.filter((other) => other.service === service).length > 1;

/** Its own name, where what it is called does not say it: SERVICE.PROJECT without replicas is PROJECT-SERVICE-1. */
function ownName(container, group, head) {
  const { name, project, service } = container;
  const usual = name === `${project}-${service}-1` && !hasReplicas(container, group);
  return usual || visible(name) === head ? "" : name;
}

/** The place that its names lead to, or else one that says why there is none. */
const mainPlace = ({ places }) =>
  places.find((place) => place.obstacle === null) ?? places.find((place) => place.address) ?? { address: null };

const briefPorts = (ports) => ports.map((port) => port.replace(/\/tcp$/, "")).join(", ");
const briefImage = (image) => image.replace(/^.*\/(?=[^/])/s, "").replace(/@sha256:.*$/s, "");

/** Projects in order, with what has none at the end; in each, what a browser opens comes first. */
function grouped(containers) {
  const groups = new Map();
  for (const container of containers) {
    const project = container.project || null;
    groups.set(project, [...(groups.get(project) ?? []), container]);
  }
  for (const group of groups.values()) {
    group.sort((one, other) => opens(other.url) - opens(one.url) || natural(one.name, other.name));
  }
  return [...groups].sort(([one], [other]) => (one === null) - (other === null) || natural(one, other));
}

const searched = (container, word) =>
  [
    container.name, container.project || "without a project", container.service, container.image, container.state,
    container.health, container.url, word, container.problem, ...container.names, ...container.ports,
    ...container.places.flatMap((place) => [place.network, place.address, place.obstacle]),
  ].filter(Boolean).map(visible).join("\n").toLowerCase();

// ----------------------------------------------------------------------------------------------------------- drawing

function say(node, text) {
  const shown = visible(text);
  if (node.textContent !== shown) node.textContent = shown;
}

function set(node, attribute, value) {
  if (value === null) node.removeAttribute(attribute);
  else if (node.getAttribute(attribute) !== value) node.setAttribute(attribute, value);
}

function show(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

const link = (node, url) => set(node, "href", opens(url) ? url : null);

/** Puts a copy button at the end of a node, or takes it away where there is nothing to copy. */
function copyable(node, text) {
  let button = node.querySelector(":scope > .copy");
  if (!text) return button?.remove();
  if (!button) node.append((button = byId("copy").content.firstElementChild.cloneNode(true)));
  set(button, "data-text", visible(text));
  set(button, "aria-label", `Copy ${visible(text)}`);
  set(button, "title", `Copy ${visible(text)}`);
}

/** Makes a list's nodes those of the items, one each by its key; nodes that are there already stay. */
function list(parent, template, items, key, draw) {
  const keys = new Set(items.map(key));
  const there = new Map();
  for (const node of [...parent.children]) {
    if (keys.has(node.key) && !there.has(node.key)) there.set(node.key, node);
    else node.remove();
  }
  let place = parent.firstElementChild;
  for (const item of items) {
    let node = there.get(key(item));
    if (node && node === place) place = place.nextElementSibling;
    else if (node) (parent.moveBefore ?? parent.insertBefore).call(parent, node, place); // moveBefore keeps the focus
    else {
      node = byId(template).content.firstElementChild.cloneNode(true);
      node.key = key(item);
      parent.insertBefore(node, place);
    }
    draw(node, item);
  }
}

function drawContainer(node, container, group, domain) {
  const { kind, word, why } = verdict(container);
  const name = visible(called(container, group, domain));
  const tail = name.endsWith(`.${domain}`) ? `.${domain}` : "";
  const head = name.slice(0, name.length - tail.length);
  const { address } = mainPlace(container);
  node.text = searched(container, word);
  set(node, "class", kind);
  say(part(node, "head"), head);
  say(part(node, "tail"), tail);
  set(part(node, "name"), "title", name);
  link(part(node, "name"), container.url);
  copyable(part(node, "main"), opens(container.url) ? container.url : container.names.length ? name : null);
  say(part(node, "known-as"), ownName(container, group, head));
  say(part(node, "image"), briefImage(container.image));
  set(part(node, "what"), "title", visible(container.image));
  say(part(node, "number"), address ?? "");
  copyable(part(node, "address"), isReached(container) ? address : null);
  say(part(node, "numbers"), briefPorts(container.ports));
  set(part(node, "ports"), "title", visible(container.ports.join(", ")));
  say(part(node, "state"), word);
  set(part(node, "more"), "aria-label", `More about ${visible(container.name)}`);
  show(part(node, "why"), Boolean(why));
  say(part(node, "why").firstElementChild, why);
  drawDetails(node, container, domain);
}

function drawDetails(node, container, domain) {
  list(part(node, "names"), "name", container.names, (name) => name, (item, name) => {
    const itself = opens(container.url) && name.endsWith(`.${domain}`) && /^[\w.-]+$/.test(name);
    say(item.querySelector("bdi"), name);
    link(part(item, "name"), itself ? container.url.replace(/^(https?:\/\/)[^/:]*/i, `$1${name}`) : null);
    copyable(item, name);
  });
  list(part(node, "places"), "place", container.places, (place) => place.network, (item, place) => {
    say(part(item, "network"), place.network);
    say(part(item, "number"), place.address ?? "");
    say(part(item, "obstacle"), place.obstacle ? `· ${UNREACHED}: ${place.obstacle}` : "");
  });
  for (const [name, text] of [
    ["whole-name", container.name], ["whole-image", container.image], ["whole-ports", container.ports.join(", ")],
  ]) {
    say(part(node, name), text);
    show(part(node, name).closest("div"), Boolean(text));
  }
  show(part(node, "names").closest("div"), container.names.length > 0);
  show(part(node, "places").closest("div"), container.places.length > 0);
}

function drawProjects(state) {
  const groups = grouped(state.containers);
  list(byId("projects"), "project", groups, ([project]) => project, (section, [project, group]) => {
    say(part(section, "project"), project ?? "Without a project");
    say(part(section, "count"), group.length);
    list(part(section, "containers"), "container", group, ({ name }) => name, (node, container) =>
      drawContainer(node, container, group, state.domain));
  });
}

function drawAside(state) {
  show(byId("aside"), true);
  const clients = state.clients ?? [];
  list(byId("clients"), "client", clients, ({ name, address }) => `${name} ${address}`, (node, client) => {
    say(part(node, "who"), client.name);
    say(part(node, "number"), client.address ?? "");
    say(part(node, "since"), since(client.since, state.now));
  });
  show(byId("no-clients"), clients.length === 0);
  say(byId("no-clients"), state.clients ? "Nobody" : "Not known at the moment");
  show(byId("certificates-section"), state.certificates.length > 0);
  list(byId("certificates"), "certificate", state.certificates, ({ name }) => name, (node, certificate) => {
    say(part(node, "who"), certificate.name);
    say(part(node, "until"), until(certificate.expires, state.now));
    set(node, "class", certificate.warning ? "fair" : "good");
  });
}

function draw(state) {
  const { containers, domain } = state;
  document.title = visible(domain);
  say(byId("domain"), domain);
  const reached = containers.filter(isReached).length;
  const whole = reached === containers.length ? many(reached, "container") :
    `${reached} of ${many(containers.length, "container")} reached`;
  say(byId("summary"), containers.length ? `${state.project} · ${whole}` : state.project);
  const warned = state.certificates.filter((one) => one.warning).map((one) => `${one.name}: ${one.warning}`);
  const told = new Set([...state.warnings, ...warned]);
  list(byId("warnings"), "warning", [...told], (text) => text, (node, text) => say(node.firstElementChild, text));
  show(byId("nothing"), containers.length === 0);
  say(byId("hello"), `https://hello.${domain}`);
  link(byId("hello"), `https://hello.${domain}`);
  copyable(byId("start").parentElement, byId("start").textContent);
  drawProjects(state);
  drawAside(state);
  search();
}

// --------------------------------------------------------------------------------------------------------- searching

const field = byId("search");

/** Hides what has not all of the words. */
function search() {
  const words = field.value.toLowerCase().split(/\s+/);
  const rows = [...document.querySelectorAll(".containers > li")];
  for (const row of rows) show(row, words.every((word) => row.text.includes(word)));
  for (const section of byId("projects").children) {
    show(section, section.querySelector(".containers > li:not([hidden])") !== null);
  }
  const found = rows.filter((row) => !row.hidden).length;
  show(byId("no-match"), rows.length > 0 && found === 0);
  return found;
}

function showAll() {
  field.value = "";
  search();
}

field.addEventListener("input", () => {
  const found = search();
  announce(field.value ? `${many(found, "container")} found` : "");
});
byId("no-match").querySelector("button").addEventListener("click", () => {
  showAll();
  field.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target === field) {
    showAll();
    field.blur();
  }
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target === field) return;
  event.preventDefault();
  field.focus();
  field.select();
});

// ----------------------------------------------------------------------------------------------- copying and opening

const announce = (text) => say(byId("announced"), text);

async function copy(button) {
  const text = button.dataset.text;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    return announce("The browser did not let this page copy");
  }
  announce(`Copied ${text}`);
  button.classList.add("done");
  setTimeout(() => button.classList.remove("done"), TICK);
}

document.addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (button?.matches(".copy")) copy(button);
  if (!button?.matches(".more")) return;
  const details = button.closest("li").querySelector("dl");
  details.hidden = !details.hidden;
  set(button, "aria-expanded", String(!details.hidden));
});

// -------------------------------------------------------------------------------------------------------- being live

let timer = null;
let heard = null; // when the server answered last

async function ask() {
  try {
    const answer = await fetch("state.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

async function poll() {
  const state = await ask();
  clearTimeout(timer); // another question may have been asked meanwhile
  if (!document.hidden) timer = setTimeout(poll, EVERY);
  if (state === null) {
    const seen = heard ? ` What you see is as of ${heard.toTimeString().slice(0, 8)}.` : "";
    tell(`No answer from the server.${seen} Is the VPN connected? This page goes on by itself.`, "Not connected");
  } else if (state.version !== VERSION) {
    tell("The server has been updated: load this page again.", "Outdated");
  } else {
    heard = new Date();
    tell("", "Live");
    draw(state);
  }
}

function tell(sentence, word) {
  show(byId("lost"), sentence !== "");
  say(byId("lost"), sentence);
  say(byId("live"), word);
  set(byId("live"), "class", sentence ? "bad" : "good");
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else poll();
});
poll();
