"use strict";

// One button and one <audio>: play, stop, progress, and whether enough of it was heard.
class Player {
  constructor(button, audio, {onPlay = () => {}, onHeard = () => {}, loop = false} = {}) {
    this.button = button;
    this.audio = audio;
    this.heard = false;
    this.plays = 0;
    this.fill = button.querySelector(".fill");
    this.label = button.querySelector(".label");
    audio.loop = loop;
    button.addEventListener("click", () => this.toggle());
    audio.addEventListener("playing", () => {
      button.classList.add("playing");
      this.label.textContent = "Stop";
      onPlay(this);
      this.frame();
    });
    for (const event of ["pause", "ended"]) {
      audio.addEventListener(event, () => this.rest());
    }
    audio.addEventListener("timeupdate", () => this.listen(onHeard));
    audio.addEventListener("ended", () => this.listen(onHeard));
    audio.addEventListener("error", () => {
      if (audio.getAttribute("src")) {
        this.label.textContent = "Cannot be played: tap to retry";
      }
    });
  }

  load(source) {
    this.heard = false;
    this.plays = 0;
    this.button.classList.remove("heard", "playing");
    this.audio.src = source;
    this.label.textContent = "Play";
    this.fill.style.width = "0";
  }

  toggle() {
    if (this.audio.paused) {
      this.play();
    } else {
      this.stop();
    }
  }

  play() {
    if (this.audio.error) {
      this.audio.load();
    }
    this.audio.currentTime = 0;
    this.plays += 1;
    this.audio.play().catch((error) => {
      // Stopped before it began is no failure.
      if (error.name !== "AbortError") {
        this.label.textContent = "Cannot be played: tap to retry";
      }
    });
  }

  stop() {
    this.audio.pause();
  }

  rest() {
    this.button.classList.remove("playing");
    this.label.textContent = this.heard ? "Play again" : "Play";
    this.fill.style.width = "0";
  }

  // Three seconds, or nearly all of a shorter recording.
  listen(onHeard) {
    const needed = Math.min(3, 0.9 * (this.audio.duration || 3));
    if (!this.heard && this.plays > 0 && (this.audio.ended || this.audio.currentTime >= needed)) {
      this.heard = true;
      this.button.classList.add("heard");
      if (this.audio.paused) {
        this.label.textContent = "Play again";
      }
      onHeard(this);
    }
  }

  frame() {
    if (this.audio.paused) {
      return;
    }
    this.fill.style.width = `${100 * this.audio.currentTime / (this.audio.duration || 1)}%`;
    requestAnimationFrame(() => this.frame());
  }
}
