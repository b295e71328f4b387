"""What `sinkprune generate` takes."""

from dataclasses import dataclass
from typing import Annotated

from sinkprune.cli.options import ModelOptions, real, switch, whole, word


@dataclass(kw_only=True)
class Generate(ModelOptions):
    """Options of `sinkprune generate`."""

    prompt: Annotated[str, word("what the model goes on from (required)", metavar="TEXT")] = ""
    chat: Annotated[bool, switch("give the prompt as a user's message, in the tokenizer's chat template")] = (
        False
    )
    tokens: Annotated[int, whole("tokens to write", at_least=1)] = 64
    steps: Annotated[
        int | None,
        whole(
            "denoising steps of a diffusion model: fewer are faster, and reveal several tokens at once",
            at_least=1,
            show_default="one per token",
        ),
    ] = None
    temperature: Annotated[
        float, real("0 takes the most probable token, 1 draws as the model says", at_least=0)
    ] = 0.0

    def settle(self) -> None:
        """Refuse a missing prompt."""
        super().settle()
        if not self.prompt.strip():
            raise ValueError(
                'the model needs something to go on from: give --prompt, e.g. --prompt "Once upon a time"'
            )

        if self.temperature == 0:
            self.refuse(("seed",), "at --temperature 0 nothing is drawn")


COMMAND = Generate
