// Elements of the page. Text is inserted as text, never as HTML.

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

export function labelled(text, ...controls) {
  return element("label", { className: "field" }, element("span", {}, text), ...controls);
}

export function select(options, value, onchange, attributes = {}) {
  const entries = options.map(([key, text]) => element("option", { value: key, selected: key === value }, text));
  return element("select", { ...attributes, onchange: (event) => onchange(event.target.value) }, ...entries);
}

export function toggle(text, checked, onchange, attributes = {}) {
  const box = element("input", { type: "checkbox", checked, ...attributes, onchange: () => onchange(box.checked) });
  return element("label", { className: "toggle" }, box, element("span", {}, text));
}
