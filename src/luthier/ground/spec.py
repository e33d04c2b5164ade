"""The task file: one strict description of a task that every verb reads.

Only the shape and the defaults of `task.yaml` stand here; reading it from disk, with every fault placed, is
`luthier.ground.task`. A key that is listed here works; there are no reserved names.

    >>> TaskSpec(name="demo", model="smollm2-135m-instruct", data=DataSpec(train="train.jsonl")).train.epochs
    2.0
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from luthier.ground.data_spec import DataSpec
from luthier.ground.strict import Fraction, Strict


class PromptSpec(Strict):
    """The arms of the prompt search. Every combination of an instruction and a number of examples is tried on dev."""

    instructions: tuple[str, ...] = Field((), description="More instructions to try beside the task's own.")
    examples: tuple[Annotated[int, Field(ge=0, le=64)], ...] = Field(
        (0, 2, 4), min_length=1, description="Numbers of worked examples to try."
    )
    dev_items: int = Field(24, ge=1, description="Dev items that each arm answers.")


class RetrievalSpec(Strict):
    """How passages are found in `documents`."""

    method: Literal["hybrid", "keyword", "vector"] = Field("hybrid", description="BM25, vectors, or both fused.")
    passages: int = Field(3, ge=1, le=50, description="Passages put into a prompt.")
    embedding: str | None = Field(
        "minilm-l6", description="Embedding model (a preset, folder or hub id); null for none."
    )
    chunk_words: int = Field(160, ge=20, le=2000, description="Longest passage, in words.")
    overlap_words: int = Field(
        20, ge=0, le=500, description="Words that neighbouring passages of a long section share."
    )

    @model_validator(mode="after")
    def _consistent(self) -> RetrievalSpec:
        if self.embedding is None and self.method != "keyword":
            raise ValueError(
                f'method "{self.method}" needs an embedding model; set method: keyword or name an embedding'
            )
        if self.overlap_words >= self.chunk_words:
            raise ValueError("overlap_words must be smaller than chunk_words")
        return self


class GenerationSpec(Strict):
    """How answers are written."""

    max_new_tokens: int = Field(256, ge=1, le=32768, description="Longest answer, in tokens.")
    temperature: float = Field(0.0, ge=0.0, le=5.0, description="0 is greedy.")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="Nucleus: smallest set of tokens with this share.")
    top_k: int = Field(0, ge=0, description="Keep the k likeliest tokens; 0 keeps all.")
    seed: int = Field(0, ge=0, description="Seed of sampled answers.")
    batch_size: int = Field(32, ge=1, le=1024, description="Answers written together.")
    precision: Literal["bf16", "fp32"] = Field("bf16", description="Precision of the model while it answers.")


class AdapterSpec(Strict):
    """What is trained. `lora` adds low-rank matrices (Hu et al. 2021); `full` trains every weight."""

    kind: str = Field("lora", description="Registered adapter kind: lora or full, or a plug-in's.")
    rank: int = Field(16, ge=1, le=4096, description="Rank r of the update.")
    alpha: float = Field(32.0, gt=0, description="The update is scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="Dropout on the adapter's input.")
    targets: Literal["all-linear", "attention", "mlp"] | tuple[str, ...] = Field(
        "all-linear", description="Linear layers that get an adapter: a group, or names such as q_proj."
    )
    layers: int | None = Field(
        None, ge=1, description="Only the last so many decoder layers get an adapter (default: all)."
    )
    masters: Literal["fp32", "none"] = Field(
        "fp32",
        description="Of `full` in bf16: float32 masters of all weights, or none (updates are rounded stochastically).",
    )

    @model_validator(mode="after")
    def _consistent(self) -> AdapterSpec:
        if self.layers is not None and self.kind == "full":
            raise ValueError("layers is for adapters; kind: full trains every weight")
        if self.masters == "none" and self.kind == "lora":
            raise ValueError("masters: none is for kind: full; LoRA's own weights are few and stay float32")
        return self


class VocabularySpec(Strict):
    """New tokens for words of the domain."""

    tokens: tuple[Annotated[str, Field(min_length=1)], ...] = Field((), description="The tokens, as they are written.")
    file: str | None = Field(None, description="A text file with a token on each line.")
    init: Literal["subwords", "mean"] = Field(
        "subwords", description="First vector: the mean of those of the pieces it was written with, or of all tokens."
    )


class InfillSpec(Strict):
    """How text is cut for filling in the middle (Bavarian et al. 2022)."""

    rate: Fraction = Field(0.9, description="Share of the rows that are transformed; the rest stay plain text.")
    spm_rate: Fraction = Field(0.5, description="Share of those in the order suffix, prefix, middle.")
    spans: Literal["character", "line"] = Field("character", description="Where a gap may begin and end.")
    loss: Literal["all", "middle"] = Field("all", description="Tokens that are trained.")


class CorruptionSpec(Strict):
    """How spans are masked for encoder-decoder models (Raffel et al. 2020)."""

    density: float = Field(0.15, gt=0.0, lt=1.0, description="Share of the tokens that are masked.")
    mean_span: float = Field(3.0, ge=1.0, description="Mean length of a masked span, in tokens.")


class ContextSpec(Strict):
    """A longer window for a model with rotary positions."""

    factor: float = Field(gt=1.0, le=1024.0, description="Times that the window grows.")
    method: Literal["linear", "ntk", "yarn", "longrope", "llama3", "base"] = Field(
        "yarn", description="How positions are scaled (Chen, bloc97, Peng, Ding, Llama 3.1; base: a larger rope base)."
    )
    original: int | None = Field(None, ge=2, description="Window before (default: the model's own).")
    rope_base: float | None = Field(None, gt=1.0, description="Of method base: the rope base (default: derived).")
    shifted: bool = Field(
        False, description="Train with shifted sparse attention (LongLoRA), and norms and embeddings with it."
    )
    trials: int = Field(4, ge=0, le=1000, description="Of compare: passkeys and needles at each length and depth.")
    depths: int = Field(5, ge=1, le=20, description="Of compare: depths at which they stand, from 0 to 1.")
    lengths: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (), description="Of compare: tokens of their texts (default: the old window halved, whole, and doubling)."
    )

    @model_validator(mode="after")
    def _consistent(self) -> ContextSpec:
        if self.rope_base is not None and self.method != "base":
            raise ValueError(f"rope_base is for method: base; method: {self.method} has its own")
        return self


class TrainSpec(Strict):
    """How training runs."""

    objective: str = Field(
        "sft", description="Registered objective: sft, pretrain, infill or classify, or a plug-in's."
    )
    turns: Literal["all", "last"] = Field("all", description="Of sft: assistant turns that are trained.")
    prompt_loss_weight: Fraction = Field(0.0, description="Of sft: weight of the tokens that are not the assistant's.")
    neftune_alpha: float | None = Field(
        None, gt=0.0, description="Of sft: noise on embeddings while training (NEFTune; 5 is usual)."
    )
    curriculum: Literal["none", "length"] = Field("none", description="Order of the first epoch: short rows first.")
    vocabulary: VocabularySpec = VocabularySpec()
    infill: InfillSpec = InfillSpec()
    corruption: CorruptionSpec = CorruptionSpec()
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0.0)]] = Field(
        "none", description="Of classify: weight of each label's rows; balanced: inverse to its number."
    )
    adapter: AdapterSpec = AdapterSpec()
    passages: int = Field(0, ge=0, le=50, description="Retrieved passages put into each training prompt; 0 for none.")
    instruction: str | None = Field(
        None, description="Instruction in training prompts (default: the task's); a finetuned model needs fewer words."
    )
    epochs: float = Field(2.0, gt=0, description="Times through the training rows.")
    max_steps: int | None = Field(None, ge=1, description="Stop after so many optimizer steps.")
    learning_rate: float = Field(1e-3, ge=0.0, description="Peak learning rate.")
    schedule: Literal["linear", "cosine", "constant"] = Field("cosine", description="Shape after the warm-up.")
    final_rate: Fraction = Field(0.0, description="Learning rate at the end, as a share of the peak.")
    warmup: float = Field(0.1, ge=0, description="Warm-up: a share of all steps below 1, otherwise a number of steps.")
    weight_decay: float = Field(0.0, ge=0.0, description="Decoupled weight decay of AdamW.")
    max_grad_norm: float | None = Field(1.0, gt=0, description="Clip the gradient to this norm; null for none.")
    tokens_per_step: int = Field(2048, ge=1, description="An optimizer step takes rows until it has so many tokens.")
    rows_per_step: int | None = Field(
        None, ge=1, description="An optimizer step takes so many rows instead of counting tokens."
    )
    pack_tokens: int | None = Field(
        None, ge=16, description="Most tokens that a process computes at once; null for what is best on a CPU (1536)."
    )
    max_length: int = Field(2048, ge=2, description="Longest row, in tokens.")
    on_long: Literal["drop", "cut_prompt", "fail"] = Field("drop", description="What to do with longer rows.")
    base: Literal["bf16", "fp32", "int8", "nf4"] | None = Field(
        None,
        description="Precision of frozen weights (default: as precision); int8 and nf4: of the blocks' linear layers.",
    )
    precision: Literal["bf16", "fp32", "fp16"] = Field(
        "bf16", description="Precision of the arithmetic; fp16 scales the loss and keeps float32 weights."
    )
    checkpointing: Literal["none", "selective", "full"] = Field(
        "none", description="Activations computed again instead of kept: none, gate and up, or whole layers."
    )
    mlp_tile: int | None = Field(
        None, ge=64, description="Most tokens of an MLP at once (default: all); for very long rows."
    )
    prefix_sharing: bool = Field(
        True, description="Compute what rows of a step have in common at their beginning once, where it saves enough."
    )
    tf32: bool = Field(False, description="Let a GPU multiply float32 matrices in TF32; no effect elsewhere.")
    optimizer: str = Field("adamw", description="Registered optimizer: adamw, adamw8bit, adafactor, or a plug-in's.")
    optimizer_in_backward: bool = Field(
        False, description="Update each weight as soon as its gradient is complete, and free the gradient."
    )
    layers_in_turn: int | None = Field(
        None, ge=1, description="Train one layer at a time, each for so many steps, then the next (null: all at once)."
    )
    on_spike: Literal["ignore", "skip", "stop"] = Field(
        "ignore", description="What to do with a step whose loss or gradient norm is far above the last 50 steps'."
    )
    spike_factor: float = Field(
        10.0, gt=0, description="A spike is so many robust deviations above the median of the last 50 steps."
    )
    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="With several processes: each holds the whole model (ddp), or a shard of every weight (fsdp).",
    )
    eval_every: int | None = Field(None, ge=1, description="Steps between dev evaluations (default: once an epoch).")
    save_every: int | None = Field(None, ge=1, description="Steps between checkpoints (default: as eval_every).")
    keep: int = Field(2, ge=1, description="Checkpoints to keep, besides the best.")
    best_by: Literal["dev_loss", "metric"] = Field("dev_loss", description="What chooses the best checkpoint.")
    metric_items: int = Field(16, ge=1, description="Dev items answered at each evaluation when best_by is metric.")
    patience: int | None = Field(None, ge=1, description="Stop after so many evaluations without a better one.")
    seed: int = Field(0, ge=0, description="Seed of order, initial values and dropout.")

    @model_validator(mode="after")
    def _consistent(self) -> TrainSpec:
        if self.precision == "fp16" and self.base == "bf16":
            raise ValueError("precision: fp16 needs base: fp32 (or none named), since bf16 weights would lose digits")
        if self.precision == "fp16" and self.adapter.masters == "none":
            raise ValueError("adapter.masters: none needs precision: bf16")
        if self.objective in ("pretrain", "infill", "classify"):
            self._refuse_what_is_for_answers()
        if self.base in ("int8", "nf4"):
            self._refuse_what_needs_whole_weights()
        if self.optimizer_in_backward:
            self._refuse_what_needs_the_whole_gradient()
        return self

    def _refuse_what_is_for_answers(self) -> None:
        """Refuse settings of sft where nothing would become of them."""
        set_ = {
            "turns": self.turns != "all",
            "prompt_loss_weight": self.prompt_loss_weight > 0,
            "neftune_alpha": self.neftune_alpha is not None,
        }
        named = [name for name, is_set in set_.items() if is_set]
        if named:
            raise ValueError(f"{' and '.join(named)} of train is for objective: sft, not {self.objective}")

    def _refuse_what_needs_whole_weights(self) -> None:
        """Refuse what trains, scales up or shards the weights that a quantised base has only as codes."""
        if self.adapter.kind == "full":
            raise ValueError(f"kind: full trains the weights that base: {self.base} quantises; set adapter.kind: lora")
        if self.precision == "fp16":
            raise ValueError(f"base: {self.base} needs precision: bf16 or fp32")
        if self.strategy == "fsdp":
            raise ValueError(f"base: {self.base} has no weights that fsdp could shard; set strategy: ddp")

    def _refuse_what_needs_the_whole_gradient(self) -> None:
        """Refuse what can only be decided when all gradients are there, which they never are at one time."""
        if self.max_grad_norm is not None:
            raise ValueError("optimizer_in_backward cannot clip by the norm of all gradients; set max_grad_norm: null")
        if self.precision == "fp16":
            raise ValueError("optimizer_in_backward cannot take back an overflow; set precision: bf16 or fp32")
        if self.on_spike != "ignore":
            raise ValueError("optimizer_in_backward cannot take back a spike; set on_spike: ignore")


class EndpointSpec(Strict):
    """A remote OpenAI-compatible chat endpoint, compared as one more system."""

    url: str = Field(description="Base URL, such as http://127.0.0.1:8000/v1.")
    model: str = Field(description="Model name that the endpoint expects.")
    key_env: str | None = Field(
        None, description="Environment variable that holds the key; the key itself is never written."
    )
    timeout_s: float = Field(60.0, gt=0, description="Seconds before one answer counts as failed.")
    parallel: int = Field(4, ge=1, le=64, description="Requests under way at once.")
    prompt_price: float = Field(0.0, ge=0, description="Price of a million prompt tokens.")
    output_price: float = Field(0.0, ge=0, description="Price of a million output tokens.")


class CompareSpec(Strict):
    """What is compared, and what counts as enough."""

    systems: tuple[str, ...] = Field(
        (),
        description="Of majority, base, prompt, rag, finetuned, finetuned+rag, endpoint (default: all that can run).",
    )
    target: Fraction | None = Field(None, description="Score that would be good enough; advice is measured against it.")
    margin: Fraction = Field(0.03, description="Loss that would still count as non-inferior.")
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="Level of every interval.")
    seed: int = Field(0, ge=0, description="Seed of the bootstrap.")


class BudgetSpec(Strict):
    """Limits that a run must keep."""

    memory: str | None = Field(
        None,
        pattern=r"^\d+(\.\d+)?\s*(MB|GB|MiB|GiB)$",
        description="Memory of the whole process, or of the GPU, such as 6GB.",
    )
    choose: bool = Field(
        True,
        description="Let training change settings that this file does not set, if it would not fit otherwise.",
    )
    time: str | None = Field(
        None, pattern=r"^\d+(\.\d+)?\s*(s|min|h)$", description="Wall time of training, such as 20min."
    )


class TaskSpec(Strict):
    """The whole task file."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[\w .-]+$", description="Short name of the task.")
    model: str = Field(description="Base model: a preset, a hub id, a folder, or a GGUF file.")
    data: DataSpec
    documents: str | None = Field(None, description="Folder of documents: gives the task its retrieval systems.")
    instruction: str = Field("", description="What the model is told to do with each input (text, or `file:PATH`).")
    metric: str = Field(
        "exact_match", description="Registered metric, or a Python file (score.py or score.py:function)."
    )
    schema_file: str | None = Field(None, alias="schema", description="JSON schema file of the answers.")
    context: ContextSpec | None = Field(None, description="Train with a longer window than the model has.")
    labels: tuple[str, ...] = Field((), description="Labels of a classification task.")
    labels_kind: Literal["single", "multi", "regression"] = Field(
        "single", description="Of classify: one label a row, any number of them, or a number."
    )
    facts: tuple[str, ...] = Field((), description="Fields of the answer that are facts, looked for in the raw answer.")
    prompt: PromptSpec = PromptSpec()
    retrieval: RetrievalSpec = RetrievalSpec()
    generation: GenerationSpec = GenerationSpec()
    train: TrainSpec = TrainSpec()
    endpoint: EndpointSpec | None = None
    compare: CompareSpec = CompareSpec()
    budget: BudgetSpec = BudgetSpec()
