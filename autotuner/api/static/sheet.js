// Style sheets of single views, so that the first view waits for its own alone.

const loaded = new Map();

/** A style sheet beside this file, once; resolves when it applies. */
export function sheet(name) {
  if (!loaded.has(name)) {
    loaded.set(
      name,
      new Promise((resolve) => {
        const link = document.createElement("link");
        link.rel = "stylesheet";
        link.href = new URL(name, import.meta.url);
        link.addEventListener("load", resolve);
        link.addEventListener("error", resolve);
        document.head.append(link);
      }),
    );
  }
  return loaded.get(name);
}
