// Shows /openapi.json. Whatever comes from there is put in as text, never as markup.

const METHODS = ["get", "post", "put", "patch", "delete"];

/** An element with attributes and children; a child is an element or a text. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** A table in a box of its own, which a narrow screen can scroll. */
function table(heads, rows) {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell))));
  return make("div", { class: "table" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

const nameOf = (reference) => reference.split("/").pop();

/** A schema in a few words, with links to those that have a name. */
function type(schema) {
  const all = make("span");
  if (!schema) return all;
  if (schema.$ref) {
    const name = nameOf(schema.$ref);
    all.append(make("a", { href: `#schema-${name}` }, name));
  } else if (schema.anyOf || schema.oneOf) {
    (schema.anyOf ?? schema.oneOf).forEach((one, place) => all.append(place ? " or " : "", type(one)));
  } else if (schema.type === "array") {
    all.append("list of ", type(schema.items));
  } else if ("const" in schema) {
    all.append(JSON.stringify(schema.const));
  } else if (schema.enum) {
    all.append(schema.enum.map((word) => JSON.stringify(word)).join(", "));
  } else {
    const kinds = [schema.type ?? "anything"].flat();
    const range = [schema.minimum, schema.maximum].map((edge) => edge ?? "");
    all.append(kinds.join(" or "));
    if (schema.format) all.append(` (${schema.format})`);
    if (range.some((edge) => edge !== "")) all.append(`, ${range.join(" to ")}`);
  }
  if (schema.default !== undefined) all.append(`, default ${JSON.stringify(schema.default)}`);
  return all;
}

function content(media) {
  const all = make("span");
  for (const [kind, { schema }] of Object.entries(media ?? {})) {
    const text = schema?.description ? `: ${schema.description} ` : " ";
    all.append(make("code", {}, kind), text, schema && !schema.description ? type(schema) : "", " ");
  }
  return all;
}

function operation(path, method, it) {
  const title = make("h2", { id: it.operationId }, make("span", { class: "method" }, method.toUpperCase()), " ", make("code", {}, path));
  const all = make("article", {}, title, make("p", {}, `${it.summary}. ${it.description ?? ""}`));
  if (it.parameters?.length) {
    const row = (param) => [make("code", {}, param.name), param.in, type(param.schema), param.description ?? ""];
    all.append(make("h3", {}, "Parameters"), table(["name", "in", "is", "says"], it.parameters.map(row)));
  }
  if (it.requestBody) all.append(make("h3", {}, "Body"), make("p", {}, content(it.requestBody.content)));
  const row = ([status, answer]) => [make("code", {}, status), answer.description, content(answer.content)];
  all.append(make("h3", {}, "Answers"), table(["status", "when", "body"], Object.entries(it.responses).map(row)));
  return all;
}

function schema(name, it) {
  const all = make("article", {}, make("h2", { id: `schema-${name}` }, name), make("p", {}, it.description ?? ""));
  const required = new Set(it.required ?? []);
  const members = Object.entries(it.properties ?? {});
  if (members.length) {
    const row = ([key, member]) => [make("code", {}, key), type(member), required.has(key) ? "always" : "sometimes", member.description ?? ""];
    all.append(table(["member", "is", "there", "says"], members.map(row)));
  } else {
    all.append(make("p", {}, type(it)));
  }
  return all;
}

async function show() {
  const about = document.getElementById("about");
  const answer = await fetch("/openapi.json");
  if (!answer.ok) {
    about.textContent = `/openapi.json: ${answer.status} ${answer.statusText}`;
    return;
  }
  const description = await answer.json();
  about.replaceChildren(description.info.description, " ", make("a", { href: "/openapi.json" }, "openapi.json"));
  const links = make("ul");
  const operations = document.getElementById("operations");
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const method of METHODS.filter((method) => methods[method])) {
      const it = methods[method];
      links.append(make("li", {}, make("a", { href: `#${it.operationId}` }, it.summary)));
      operations.append(operation(path, method, it));
    }
  }
  document.getElementById("contents").append(links);
  const schemas = document.getElementById("schemas");
  for (const [name, it] of Object.entries(description.components.schemas)) schemas.append(schema(name, it));
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

show();
