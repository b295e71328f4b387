"""What the companion's commands take: one module for each, with the dataclass of its options as `COMMAND`."""

ABOUT = {
    "reproduce": "run the notebooks and print the paper's claims with their verdicts",
    "claims": "print the whole claims table of a run, or the published one",
    "publish": "put a finished run into notebooks/, figures/ and README.md",
    "train": "make a diffusion model of smol-ar, or of any Llama, Qwen2 or Qwen3 model",
}
"""What every command is about, by its name, as it stands in help."""
