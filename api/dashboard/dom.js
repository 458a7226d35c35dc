// Elements from names, properties and children; strings become text, never markup.

export function h(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

export function clear(parent, ...children) {
  parent.replaceChildren(...children);
}
