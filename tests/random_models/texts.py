"""Texts in the words of the random models."""

TEXT = "\n\n".join(
    " ".join(f"word{20 + (7 * line + 3 * word) % 50}" for word in range(30)) for line in range(20)
)
LEARN = "\n\n".join(
    " ".join(f"word{20 + (11 * line + 5 * word) % 50}" for word in range(line)) for line in range(12, 60)
)  # paragraphs of 12 to 59 words: their numbers decide which of them are held out
