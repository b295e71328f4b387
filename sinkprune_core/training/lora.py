"""Turn a causal language model into a masked diffusion model with a LoRA adapter, resumably.

Attention becomes bidirectional, a reserved vocabulary entry becomes the absorbing mask token, logits stay shifted
(position i-1 predicts token i), as Dream was adapted from Qwen2.5. The same recipe with the next-token loss and causal
attention gives an autoregressive twin that has seen the same data. The base is the embedded one or any other that
`bases` opens. Data, learning rate and stopping are chosen by held-out loss and nothing else; sink statistics are logged,
and decide nothing.

Dimensions: B batch, T sequence position, L maskable positions, N sequences.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.helpers import disable_input_dtype_casting
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from sinkprune_core import corpus
from sinkprune_core.diffusion.sampling import corrupt, random_mask, stratified_counts
from sinkprune_core.evaluation.likelihood import score
from sinkprune_core.files import write_json
from sinkprune_core.memory import keep_freed_memory
from sinkprune_core.models.language_model import KINDS, LanguageModel
from sinkprune_core.pruning.calibration import Calibration, sink_profiles
from sinkprune_core.seeds import generator
from sinkprune_core.sinks import detection
from sinkprune_core.training.base import EMBEDDED_BASE, LINEARS, Base, open_base
from sinkprune_core.training.crops import HELD_OUT_LENGTH, Crops, prepare_data

FREE = ("tokens", "decay_share", "learning_rate", "warmup_steps")  # a run may go on with others of these
SINK_LEVELS, SINK_SEQUENCES = (
    8,
    8,
)  # what sink statistics are logged on: noise levels, held-out sequences of each source
SINK_COLUMNS = ("top_share", "sinks_per_step", "stable_share", "overlap", "temporal_variance")


@dataclass(frozen=True)
class Training:
    """What a run is; two runs with equal fields on equal data are the same run. Lengths in tokens.

    The learning rate warms up linearly, stays, and falls linearly to zero over the last `decay_share` of the run, so
    that a longer run continues from the flat part. `kind` is what the model becomes: it decides attention and loss.
    `base` and `mask_token` are what `bases.open_base` takes. `samples` of the base itself, drawn with `data_seed`, are
    for the embedded one only. A step sees `batch_tokens` tokens in crops of one of `lengths`; `seed` decides which.
    """

    kind: str = "diffusion"
    base: str = EMBEDDED_BASE
    mask_token: str | None = None
    tokens: int = 1_024_000
    lengths: tuple[int, ...] = (64, 128, 256, 512)
    batch_tokens: int = 2048
    learning_rate: float = 1e-3
    rank: int = 32
    alpha: int = 64
    warmup_steps: int = 20
    decay_share: float = 0.2
    samples: int = 4608
    data_seed: int = 0
    seed: int = 0

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is not one of {KINDS}")
        object.__setattr__(self, "lengths", tuple(self.lengths))  # JSON has lists
        for field in ("tokens", "batch_tokens", "rank", "alpha", "warmup_steps"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)} must be at least 1")
        if not self.lengths or min(self.lengths) < 2:
            raise ValueError(f"lengths={self.lengths} must be at least 2 each: the first token is context")
        if max(self.lengths) > self.batch_tokens:
            raise ValueError(
                f"lengths={self.lengths} must not exceed batch_tokens={self.batch_tokens}: a batch holds at least one crop"
            )
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate={self.learning_rate} must be above 0")
        if not 0 <= self.decay_share <= 1:
            raise ValueError(f"decay_share={self.decay_share} must lie in [0, 1]")
        if self.base == EMBEDDED_BASE and self.samples <= corpus.HELD_OUT_SAMPLES:
            raise ValueError(
                f"samples={self.samples} must exceed the {corpus.HELD_OUT_SAMPLES} that are held out"
            )
        if self.base == EMBEDDED_BASE and self.mask_token is not None:
            raise ValueError(
                f"mask_token={self.mask_token!r} is for other bases: {EMBEDDED_BASE} has its own; leave it out"
            )
        if self.base != EMBEDDED_BASE and self.samples:
            raise ValueError(
                f"samples={self.samples} are drawn from {EMBEDDED_BASE} only: give samples=0 and a text for base {self.base}"
            )

    @property
    def steps(self) -> int:
        return -(-self.tokens // self.batch_tokens)

    def rate(self, step: int, begun: int = 0) -> float:
        """Return the learning rate at `step` of a run whose optimizer began at step `begun`."""
        flat = min(1.0, (step - begun + 1) / self.warmup_steps)
        return self.learning_rate * min(flat, (self.steps - step) / max(1.0, self.steps * self.decay_share))


def masked_cross_entropy(lm: LanguageModel, ids_BT: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Return a one-batch estimate of the NELBO in nats per token: stratified noise levels, logits at masks only.

    Position 0 is masked as often as any other, so no model learns that a first token is always there. It is never
    predicted: logits are shifted, and nothing precedes it.
    """
    batch, length = ids_BT.shape
    predicted_T = torch.arange(length) > 0
    counts_B = stratified_counts(batch, length - 1, rng)
    where_BT = torch.stack([random_mask(predicted_T, int(count), rng) for count in counts_B])
    masked_BT = where_BT.clone()
    masked_BT[:, 0] = torch.rand(batch, generator=rng) < counts_B / (length - 1)
    logits_NV = lm.logits_at(corrupt(ids_BT, masked_BT, lm.mask_token_id), where_BT)
    loss_N = torch.nn.functional.cross_entropy(
        logits_NV, ids_BT[where_BT].to(logits_NV.device), reduction="none"
    )
    return (loss_N / counts_B.repeat_interleave(counts_B).to(loss_N)).sum() / batch


def next_token_cross_entropy(lm: LanguageModel, ids_BT: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Return the mean negative log-likelihood of a batch in nats per token; position 0 is context. Nothing here is random."""
    where_BT = (torch.arange(ids_BT.shape[1]) > 0).expand_as(ids_BT)
    logits_NV = lm.logits_at(ids_BT, where_BT)
    return torch.nn.functional.cross_entropy(logits_NV, ids_BT[where_BT].to(logits_NV.device))


LOSSES = {"diffusion": masked_cross_entropy, "autoregressive": next_token_cross_entropy}
MEASURES = {"diffusion": "nelbo", "autoregressive": "nll"}


def trainable(
    config: Training, base: Base, adapter: Path | None = None, device: str = "cpu"
) -> tuple[PeftModel, LanguageModel]:
    """Return the base in bfloat16 with `adapter` (or a fresh one) that can be trained, and the language model around it."""
    model, tokenizer = base.load(torch.bfloat16)
    if torch.device(device).type == "cpu":
        model.set_attn_implementation("eager")  # its backward pass is faster there than the fused one's
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    else:
        torch.manual_seed(config.seed)  # LoRA's own initialisation draws from the global generator
        model = get_peft_model(
            model,
            LoraConfig(
                r=config.rank, lora_alpha=config.alpha, target_modules=list(LINEARS), task_type="CAUSAL_LM"
            ),
        )
    return model, base.member(model.to(device).get_base_model(), tokenizer, config.kind)


def sources_of(data: dict[str, torch.Tensor], split: str) -> dict[str, torch.Tensor]:
    """Return the text of a split by source (and kind, if held out), samples of the base first."""
    found = {
        name.removeprefix(f"{split}_"): ids_NT
        for name, ids_NT in data.items()
        if name.startswith(f"{split}_")
    }
    return dict(sorted(found.items(), key=lambda item: not item[0].startswith("samples")))


def train(
    config: Training,
    folder: Path,
    start_from: Path | None = None,
    check_every: int = 250,
    save_every: int = 20,
    held_out: int = 32,
    draws: int = 2,
    text: str | None = None,
    device: str = "cpu",
) -> Path:
    """Train the adapter in `folder`, going on from its last checkpoint if there is one; return the adapter's folder.

    `start_from` is an exported adapter to go on from on any machine: the place in the data comes from its log, only the
    optimizer starts afresh, after a warm-up. `text` is what `prepare_data` takes. Every `check_every` steps `log.jsonl`
    receives training loss since the last row or start and held-out loss (nats per token), sink statistics, learning rate and
    speed; every `save_every` steps, and then too, the checkpoint is replaced. Raises ValueError when `folder` or `start_from`
    holds another run, and what `open_base` and `prepare_data` raise.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = _newest(folder)
    _check_settings(config, folder)
    base = open_base(config.base, config.mask_token, max(config.lengths))
    first = 0
    if not checkpoint.exists() and start_from is not None:
        first = _adopt(config, base, Path(start_from), folder)
    held_out_length = min(HELD_OUT_LENGTH, max(config.lengths))
    data = prepare_data(
        base.checkpoint.tokenizer(), folder, config.samples, config.data_seed, text, held_out_length
    )
    write_json(folder / "training.json", asdict(config))
    keep_freed_memory()

    model, lm = trainable(config, base, checkpoint if checkpoint.exists() else start_from, device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    first = _restore(optimizer, checkpoint) or first
    begun = first - next(
        (int(state["step"]) for state in optimizer.state.values()), 0
    )  # where the optimizer did: it warms up once
    crops = Crops(list(sources_of(data, "train").values()), config.lengths, config.batch_tokens, config.seed)
    tokens_per_step, measure, loss_of = config.batch_tokens, MEASURES[config.kind], LOSSES[config.kind]

    bar = tqdm(
        total=config.steps * tokens_per_step,
        initial=first * tokens_per_step,
        unit="tok",
        unit_scale=True,
        desc="train",
    )
    since, losses = time.perf_counter(), []
    for step in range(first, config.steps):
        ids_BT = crops.batch(step)
        for group in optimizer.param_groups:
            group["lr"] = config.rate(step, begun)
        with half_precision(lm):
            loss = loss_of(lm, ids_BT, generator(config.seed, "train", step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        bar.update(tokens_per_step)
        done = step + 1
        if done % check_every == 0 or done == config.steps:
            speed = len(losses) * tokens_per_step / (time.perf_counter() - since)
            row = {
                "step": done,
                "tokens": done * tokens_per_step,
                f"train_{measure}": sum(losses) / len(losses),
                "learning_rate": config.rate(step, begun),
                "tokens_per_second": speed,
            }
            row |= held_out_losses(lm, data, measure, held_out, draws) | sink_row(lm, data)
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            bar.set_postfix({key: f"{value:.3f}" for key, value in row.items() if measure in key})
            since, losses = time.perf_counter(), []
        if not losses or done % save_every == 0:
            _save(model, optimizer, checkpoint, done)
    bar.close()
    return checkpoint


@contextmanager
def half_precision(lm: LanguageModel) -> Iterator[None]:
    """Compute in bfloat16 on the model's device: adapters and their moments stay float32, and no input is cast to that and back."""
    with torch.autocast(lm.device.type, dtype=torch.bfloat16), disable_input_dtype_casting(lm.model):
        yield


def held_out_losses(
    lm: LanguageModel, data: dict[str, torch.Tensor], measure: str, count: int, draws: int
) -> dict[str, float]:
    """Return NELBO or negative log-likelihood of the first `count` held-out sequences of each source, nats per token."""
    with half_precision(lm):
        return {
            f"{measure}_{name}": float(score(lm, ids_NT[:count], draws, seed=0).value.mean())
            for name, ids_NT in sources_of(data, "held_out").items()
        }


def sink_row(lm: LanguageModel, data: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return mean sink statistics on held-out text along its noise levels (see `sinks.variability`), to be logged and no more."""
    ids_NT = torch.cat([ids_NT[:SINK_SEQUENCES] for ids_NT in sources_of(data, "held_out").values()])
    with half_precision(lm):
        profile_NST, visible_ST = sink_profiles(
            lm, Calibration(ids_NT), min(SINK_LEVELS, ids_NT.shape[1] - 1), progress=False
        )
    means = detection.variability(profile_NST, visible_ST)[list(SINK_COLUMNS)].mean()
    return {f"sinks_{name}": None if means.isna()[name] else float(means[name]) for name in SINK_COLUMNS}


def settings_of(file: Path) -> dict:
    """Return the settings of a run, those included that it does not name because it is older than they are."""
    later = {name: getattr(Training(), name) for name in ("kind", "base", "mask_token", "data_seed")}
    return later | json.loads(file.read_text(encoding="utf-8"))


def _check_settings(config: Training, folder: Path) -> None:
    """Raise ValueError when `folder` holds the settings of a run that `config` does not go on with."""
    file, settings = folder / "training.json", asdict(config)
    if file.exists():
        former = settings_of(file)
        settings["lengths"] = list(config.lengths)
        differing = sorted(key for key in settings if key not in FREE and former.get(key) != settings[key])
        if differing:
            raise ValueError(
                f"{folder} holds a run with other settings ({', '.join(differing)}): use another folder, or the former settings in {file.name}"
            )


def _adopt(config: Training, base: Base, adapter: Path, folder: Path) -> int:
    """Check an exported adapter, begin the log with its own, and return the step it stands at."""
    missing = [
        name
        for name in (
            "adapter_config.json",
            "adapter_model.safetensors",
            "training.json",
            "training_log.jsonl",
        )
        if not (adapter / name).is_file()
    ]
    if missing:
        raise FileNotFoundError(
            f"{adapter} has no {' and no '.join(missing)}: start from a folder that `sinkprune train --export` wrote"
        )
    known = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))[
        "base_model_name_or_path"
    ]
    if known != base.origin:
        raise ValueError(
            f"the adapter in {adapter} belongs to the base {known!r}, not to {base.origin!r}: start from another, or from none"
        )
    _check_settings(config, adapter)
    log = (adapter / "training_log.jsonl").read_text(encoding="utf-8")
    step = json.loads(log.splitlines()[-1])["step"]
    if step >= config.steps:
        raise ValueError(
            f"tokens={config.tokens} are not more than the {step * config.batch_tokens} the adapter in {adapter} has seen: ask for more in all"
        )
    (folder / "log.jsonl").write_text(log, encoding="utf-8")
    return step


def _newest(folder: Path) -> Path:
    """Return the checkpoint's folder; a kill between the two renames of `_save` left only complete copies beside it."""
    checkpoint = folder / "checkpoint"
    for copy in (folder / "checkpoint.new", folder / "checkpoint.old"):
        if not checkpoint.exists() and (copy / "optimizer.safetensors").exists():
            copy.rename(checkpoint)
    return checkpoint


def _save(model: PeftModel, optimizer: torch.optim.Optimizer, folder: Path, step: int) -> None:
    """Replace the checkpoint: adapter, AdamW's moments and count, and the step, all as safetensors."""
    state = {
        f"{key}.{index}": value
        for index, moments in optimizer.state_dict()["state"].items()
        for key, value in moments.items()
    }
    fresh, old = folder.with_name("checkpoint.new"), folder.with_name("checkpoint.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    model.save_pretrained(fresh)
    save_file(state, fresh / "optimizer.safetensors", metadata={"step": str(step)})
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _restore(optimizer: torch.optim.Optimizer, checkpoint: Path) -> int:
    """Load the optimizer's state if the checkpoint has it; return the step to go on from."""
    file = checkpoint / "optimizer.safetensors"
    if not file.exists():
        return 0
    with safe_open(file, "pt") as handle:
        step = int(handle.metadata()["step"])
        state = optimizer.state_dict()
        for name in handle:
            key, index = name.split(".")
            state["state"].setdefault(int(index), {})[key] = handle.get_tensor(name)
    optimizer.load_state_dict(state)
    return step
