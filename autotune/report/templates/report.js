"use strict";
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // Figures name colours of the page: "@blue" is the variable --blue.
  const plots = [...document.querySelectorAll("script[data-plot]")].map((script) => ({
    target: document.getElementById(script.dataset.plot),
    text: script.textContent,
  }));
  const draw = (plot) => {
    // Reading megabytes of plotly.js would keep the page from showing: it waits until a plot is near, or the page has nothing else to do.
    if (!window.Plotly) {
      const script = document.createElement("script");
      script.textContent = document.getElementById("plotly").textContent;
      document.head.append(script);
    }
    const style = getComputedStyle(root);
    const figure = JSON.parse(plot.text, (_, value) =>
      typeof value === "string" && /^@[a-z]+$/.test(value) ? style.getPropertyValue(`--${value.slice(1)}`).trim() : value,
    );
    // The legend needs more lines where there is less room.
    if (plot.target.clientWidth < 560) figure.layout.height += 16 * figure.data.length;
    plot.drawn = true;
    Plotly.react(plot.target, figure.data, figure.layout, { responsive: true, displaylogo: false });
  };
  // What is folded away has no width; it is drawn when somebody opens it.
  const visible = (plot) => plot.target.checkVisibility?.() ?? true;
  for (const folded of document.querySelectorAll("details")) {
    folded.addEventListener("toggle", () => plots.filter((plot) => folded.open && folded.contains(plot.target)).forEach(draw));
  }
  const redraw = () => plots.filter((plot) => plot.drawn && visible(plot)).forEach(draw);
  const drawOnce = (plot) => { if (!plot.drawn) draw(plot); };
  const near = new IntersectionObserver(
    (entries) => {
      for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
        near.unobserve(target);
        drawOnce(plots.find((plot) => plot.target === target));
      }
    },
    { rootMargin: "600px" },
  );
  plots.forEach((plot) => near.observe(plot.target));
  // The others follow when there is nothing else to do, one at a time.
  const later = window.requestIdleCallback ?? ((work) => setTimeout(work, 200));
  const drawNext = () => {
    const next = plots.find((plot) => !plot.drawn && visible(plot));
    if (next) { draw(next); later(drawNext); }
  };
  addEventListener("load", () => later(drawNext));
  dark.addEventListener("change", redraw);
  addEventListener("beforeprint", () => { root.dataset.theme = "light"; plots.filter(visible).forEach(draw); });
  addEventListener("afterprint", () => { delete root.dataset.theme; redraw(); });

  const dialog = document.getElementById("enlarged");
  for (const row of document.querySelectorAll(".prompt")) {
    for (const button of row.querySelectorAll("button.picture")) {
      button.addEventListener("click", () => {
        dialog.querySelector("h2").textContent = row.querySelector("figcaption strong").textContent;
        const shown = [...row.querySelectorAll("button.picture")].map((each) => {
          const copy = document.createElement("div");
          copy.className = "picture";
          copy.append(...[...each.children].map((child) => child.cloneNode(true)));
          return copy;
        });
        dialog.querySelector(".trio").replaceChildren(...shown);
        dialog.showModal();
      });
    }
  }
  dialog?.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  const copy = document.getElementById("copy");
  if (copy) {
    copy.addEventListener("click", async () => {
      const snippet = document.getElementById("snippet");
      const status = document.getElementById("copied");
      try {
        await navigator.clipboard.writeText(snippet.textContent);
        status.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(snippet);
        status.textContent = "Selected: press Ctrl-C";
      }
    });
  }

  const seconds = Number(document.body.dataset.reload);
  if (seconds) {
    setInterval(() => {
      if (document.getElementById("reload").checked && !document.hidden && !dialog.open) location.reload();
    }, 1000 * seconds);
  }
})();
