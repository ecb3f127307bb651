"use strict";

const start = document.getElementById("start");
new Player(document.getElementById("play"), document.getElementById("sound"), {
  loop: true,
  onPlay() {
    start.classList.remove("disabled");
    start.removeAttribute("aria-disabled");
    document.getElementById("hint").textContent = "Is the voice clear and comfortable? Then go on.";
  },
});
start.addEventListener("click", (event) => {
  if (start.classList.contains("disabled")) {
    event.preventDefault();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target === document.body) {
    start.click();
  }
});
