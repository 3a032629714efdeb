(() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 40rem)");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const plots = [];

  // Colours and sizes that depend on where the page is read; everything else is in the figure.
  const here = (layout, printing) => {
    const isDark = dark.matches && !printing;
    const line = isDark ? "#343b45" : "#e1e6eb";
    const changed = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      "font.color": isDark ? "#dfe4ea" : "#1c2128",
      "font.size": narrow.matches ? 11 : 13,
      "hoverlabel.align": "left",
      "modebar.bgcolor": "rgba(0,0,0,0)",
      "modebar.color": isDark ? "#9aa4b0" : "#59636e",
    };
    for (const axis of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
      changed[axis + ".gridcolor"] = line;
      changed[axis + ".linecolor"] = line;
    }
    return changed;
  };
  const draw = (printing) => plots.forEach((plot) => Plotly.relayout(plot, here(plot.layout, printing)));

  for (const source of document.querySelectorAll("script[data-plot]")) {
    const plot = document.getElementById(source.dataset.plot);
    const { data, layout } = JSON.parse(source.textContent);
    const options = {
      responsive: true,
      displaylogo: false,
      displayModeBar: matchMedia("(hover: hover)").matches && !narrow.matches ? "hover" : false,
      modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
      showSendToCloud: false, // what is in this page stays in it
      plotlyServerURL: "",
      scrollZoom: false,
    };
    if (narrow.matches) {
      layout.margin = { ...layout.margin, l: 44, r: 8 };
      layout.dragmode = false; // a finger scrolls the page
    }
    if (still.matches) layout.transition = { duration: 0 };
    Plotly.newPlot(plot, data, layout, options).then(() => Plotly.relayout(plot, here(layout, false)));
    plots.push(plot);
  }
  dark.addEventListener("change", () => draw(false));
  addEventListener("beforeprint", () => draw(true));
  addEventListener("afterprint", () => draw(false));
})();
