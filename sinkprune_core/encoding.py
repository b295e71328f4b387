"""What a text spells is text: the mask of a diffusion model stands where noise puts it, and nowhere else."""


def without_mask(ids: list[int], tokenizer, mask_token_id: int | None) -> list[int]:
    """Return the token ids of a text with the letters of the mask's name in place of each mask among them.

    Tokenizers take the name of a special token, wherever a text has it, for that token. All other ids stay as
    they are; None stands for a model without a mask. Raises ValueError where the vocabulary knows the mask
    as a word that has no letters of its own.
    """
    if mask_token_id is None or mask_token_id not in ids:
        return ids

    name = tokenizer.convert_ids_to_tokens(mask_token_id)
    letters = tokenizer(name, add_special_tokens=False, split_special_tokens=True).input_ids
    if mask_token_id in letters:
        raise ValueError(
            f"the text holds {name!r}, which this model's vocabulary knows only as its mask: "
            "take it out of the text"
        )

    read = []
    for token in ids:
        if token == mask_token_id:
            read += letters
        else:
            read.append(token)

    return read
