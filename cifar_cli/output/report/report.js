"use strict";
(() => {
  const form = document.getElementById("filters");
  if (!form) return;
  const gallery = document.getElementById("gallery");
  const count = document.getElementById("count");
  const cards = [...gallery.children];
  const orders = {
    loss: (a, b) => b.dataset.loss - a.dataset.loss,
    confidence: (a, b) => b.dataset.confidence - a.dataset.confidence,
    index: () => 0,
  };
  const fits = (card) => {
    const wanted = form.elements;
    return (
      (wanted.true.value === "" || card.dataset.true === wanted.true.value) &&
      (wanted.predicted.value === "" || card.dataset.predicted === wanted.predicted.value) &&
      card.dataset.name.includes(wanted.file.value.trim().toLowerCase())
    );
  };
  const update = () => {
    let shown = 0;
    for (const card of cards) {
      card.hidden = !fits(card);
      shown += card.hidden ? 0 : 1;
    }
    const order = orders[form.elements.sort.value];
    gallery.append(...[...cards].sort((a, b) => order(a, b) || a.dataset.index - b.dataset.index));
    const all = cards.length === 1 ? "1 image" : `${cards.length} images`;
    count.textContent =
      shown === cards.length ? `${all} shown`
      : shown === 0 ? "No image fits these filters"
      : `${shown} of ${all} shown`;
  };
  form.addEventListener("input", update);
  form.addEventListener("reset", () => setTimeout(update));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  update();
})();
