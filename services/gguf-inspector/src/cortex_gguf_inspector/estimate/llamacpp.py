"""Memory of a llama-server per device, from the facts of a model and its options. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from cortex_contracts.engines import LlamaCppOptions
from cortex_contracts.enums import Task
from cortex_contracts.estimates import CPU_DEVICE, DeviceV1, HostV1, MemoryV1
from cortex_gguf_inspector.estimate.allocator import buffer_sizes
from cortex_gguf_inspector.estimate.architecture import Facts, Layer
from cortex_gguf_inspector.estimate.attention import BatchShape
from cortex_gguf_inspector.estimate.batch import BatchGraph
from cortex_gguf_inspector.estimate.caches import CacheShape, CacheWish, cache_shape, layer_bytes
from cortex_gguf_inspector.estimate.overrides import Overrides, is_expert, parse_overrides
from cortex_gguf_inspector.estimate.placement import CPU, Placement, place
from cortex_gguf_inspector.header import TensorInfo

MIB = 1 << 20
DRIVER_CONTEXT = 512 * MIB
"""What a GPU's driver keeps for one process; between 0.3 and 0.6 GiB by reports, not measured here."""
DEFAULT_CACHE_RAM = 1024 * MIB
"""What the orchestrator passes when the model does not say."""
ENGINE_CACHE_RAM = 8192 * MIB
LAST_WITHOUT_MIXED_INPUT = 10_434
"""Build 11434 reserves one more input as wide as the model; where in between that began was not looked up."""
AUTO_SLOTS = 4
"""Slots of an engine that is left to choose; they share one cache then."""
DEFAULT_UBATCH = 512
ALL_LAYERS = 1 << 20
_QUANTIZED = frozenset({"q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"})
REPACKED_SIZES = MappingProxyType(
    {
        2: (1, 1),
        3: (1, 1),
        8: (38, 34),
        10: (1, 1),
        12: (148, 144),
        13: (180, 176),
        14: (1, 1),
        20: (1, 1),
        23: (138, 136),
        39: (1, 1),
    }
)
"""Tensor types that some CPU re-lays (Q4_0, Q4_1, Q8_0, Q2_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4) and by how much
that makes them larger on the CPU where it does most (AMX): which it is depends on the CPU's instructions."""
EXPERTS_REPACKED = frozenset({2, 10, 12, 20, 39})
"""Types of which also the experts (three dimensions) are re-laid."""
_ROUGH_MARGIN = 1.5
"""Hybrids and unknown graphs: the rule of thumb is up to 35 % low."""
_PIPELINE_COPIES = 4


@dataclass(frozen=True, slots=True)
class Companions:
    """Other files that are loaded with the model. Sizes in bytes."""

    draft: Facts | None = None
    projector: int = 0
    adapters: int = 0


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything the memory depends on."""

    facts: Facts
    options: LlamaCppOptions
    devices: tuple[DeviceV1, ...] = ()
    host: HostV1 = field(default_factory=HostV1)
    task: Task = Task.GENERATE
    overrides: Overrides = field(default_factory=Overrides)
    companions: Companions = field(default_factory=Companions)
    build: int | None = None
    """Build number of the engine; None counts what the newest is known to take."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """Options as the engine will take them."""

    cache: CacheShape
    ubatch: int
    placement: Placement
    outputs: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Memory per device, the CPU first. `unknown` says why the sum is only a lower bound."""

    devices: tuple[MemoryV1, ...]
    resolved: Resolved
    unknown: str | None
    warnings: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Over all devices."""
        return sum(memory.total for memory in self.devices)

    @property
    def fits(self) -> bool | None:
        """Whether every device has room; None when one of them is not known and no other is too small."""
        answers = [memory.fits for memory in self.devices]
        if False in answers:
            return False
        return None if None in answers else True


@dataclass(slots=True)
class _Sums:
    """Bytes per device under construction."""

    weights: list[int]
    kv: list[int]
    compute: list[int]
    output: list[int]
    other: list[int]
    repacked: int = 0
    warnings: list[str] = field(default_factory=list[str])


def setup(
    facts: Facts, options: LlamaCppOptions, extra_args: Sequence[str] = (), devices: Sequence[DeviceV1] = ()
) -> Setup:
    """A setup for generating text on a host that nothing is known of."""
    return Setup(facts, options, tuple(devices), overrides=parse_overrides(extra_args))


def resolve(setup: Setup) -> Resolved:
    """What the engine makes of the options."""
    options, facts = setup.options, setup.facts
    slots = options.parallel_slots or AUTO_SLOTS
    unified = options.kv_unified if options.kv_unified is not None else options.parallel_slots is None
    ubatch = min(options.ubatch_size or DEFAULT_UBATCH, options.batch_size)
    wish = CacheWish(
        context=options.context_size,
        slots=slots,
        unified=unified,
        ubatch=ubatch,
        swa_full=setup.overrides.swa_full,
        key_type=options.cache_type_k or "f16",
        value_type=options.cache_type_v or "f16",
    )
    cache = cache_shape(facts, wish)
    outputs = slots if setup.task is Task.GENERATE else ubatch
    return Resolved(cache, ubatch, _placement(setup), outputs)


def _placement(setup: Setup) -> Placement:
    options, devices = setup.options, setup.devices
    shares = tensor_shares(options.tensor_split, devices)
    main = (setup.overrides.main_device or 0) if options.split_mode == "none" else None
    ngl = ALL_LAYERS if options.ngl is None else options.ngl
    return place(setup.facts.block_count, ngl, shares, caches_on_cpu=setup.overrides.caches_on_cpu, main=main)


def tensor_shares(tensor_split: str | None, devices: Sequence[DeviceV1]) -> tuple[float, ...]:
    """How the layers are shared out: as given, else by free memory."""
    if tensor_split is None:
        return tuple(float(device.memory_free) for device in devices)
    given = [float(part) for part in tensor_split.replace("/", ",").split(",")]
    return tuple((given + [0.0] * len(devices))[: len(devices)])


def estimate(setup: Setup) -> Estimate:
    """Memory of the engine with this setup."""
    resolved = resolve(setup)
    count = len(setup.devices) + 1
    sums = _Sums([0] * count, [0] * count, [0] * count, [0] * count, [0] * count)
    _add_weights(sums, setup, resolved.placement)
    if setup.facts.unknown is None:
        _add_caches(sums, setup, resolved)
        _add_compute(sums, setup, resolved)
    sums.output[CPU] += resolved.cache.slots * setup.facts.n_vocab * 4
    _add_others(sums, setup, resolved)
    names = (CPU_DEVICE, *(device.name for device in setup.devices))
    free = (setup.host.memory_free, *(device.memory_free for device in setup.devices))
    memories = tuple(
        _memory(sums, index, name, free[index], resolved.placement.layers_on(index)) for index, name in enumerate(names)
    )
    return Estimate(memories, resolved, setup.facts.unknown, tuple(sums.warnings))


def _memory(sums: _Sums, index: int, name: str, free: int | None, layers: int) -> MemoryV1:
    parts = (sums.weights[index], sums.kv[index], sums.compute[index], sums.output[index], sums.other[index])
    total = sum(parts)
    return MemoryV1(
        device=name,
        weights=parts[0],
        kv=parts[1],
        compute=parts[2],
        output=parts[3],
        other=parts[4],
        total=total,
        repacked=sums.repacked if index == CPU else 0,
        free=free,
        fits=None if free is None else total <= free,
        layers=layers,
    )


def _add_weights(sums: _Sums, setup: Setup, placement: Placement) -> None:
    facts, overrides = setup.facts, setup.overrides
    repack = repacks(setup)
    for index, layer in enumerate(facts.layers):
        home = placement.homes[index]
        for name, tensor in layer.tensors.items():
            stays = home == CPU or (index < overrides.experts_on_cpu and is_expert(name))
            _add_tensor(sums, tensor, CPU if stays else home, repack=repack)
    for tensor in facts.input_tensors.values():
        _add_tensor(sums, tensor, CPU, repack=False)
    for tensor in facts.output_tensors.values():
        _add_tensor(sums, tensor, placement.homes[-1], repack=repack)
    if facts.tied:
        embedding = facts.input_tensors["token_embd.weight"]
        if placement.homes[-1] != CPU or (repack and embedding.type_id in REPACKED_SIZES):
            _add_tensor(sums, embedding, placement.homes[-1], repack=repack)
    for pattern in overrides.not_understood:
        sums.warnings.append(f"{pattern} moves tensors in a way this estimate does not follow")
    if setup.options.split_mode in ("row", "tensor") and setup.devices:
        sums.warnings.append(
            f"split mode {setup.options.split_mode} is counted like layer; devices may differ by a few %"
        )


def repacks(setup: Setup) -> bool:
    """Whether the engine re-lays CPU weights: not when told so, and not beside a GPU (its host memory is used then)."""
    return not setup.overrides.no_repack and not any(device.driver_context for device in setup.devices)


def _add_tensor(sums: _Sums, tensor: TensorInfo, home: int, *, repack: bool) -> None:
    size = tensor.size
    if repack and home == CPU and len(tensor.dims) > 1 and tensor.type_id in REPACKED_SIZES:
        if tensor.type_id not in EXPERTS_REPACKED and len(tensor.dims) > 2 and tensor.dims[2] > 1:
            sums.weights[home] += size  # experts of these types stay as they are
            return
        numerator, denominator = REPACKED_SIZES[tensor.type_id]
        size = size * numerator // denominator
        sums.repacked += size
    sums.weights[home] += size


def _add_caches(sums: _Sums, setup: Setup, resolved: Resolved) -> None:
    for home, size in zip(resolved.placement.caches, layer_bytes(setup.facts, resolved.cache), strict=True):
        sums.kv[home] += size


def _add_compute(sums: _Sums, setup: Setup, resolved: Resolved) -> None:
    facts = setup.facts
    if facts.approximate is None and not facts.encoder:
        sizes = exact_compute(setup, resolved)
    else:
        sizes = rough_compute(setup, resolved)
        sums.warnings.append(facts.approximate or "the compute buffer of encoders is a rule of thumb")
    for device, size in sizes.items():
        sums.compute[device] += size
    _add_offloaded_weights(sums, setup, resolved.placement)


def exact_compute(setup: Setup, resolved: Resolved) -> dict[int, int]:
    """Compute buffers by replaying the engine's own allocation."""
    facts, options, cache = setup.facts, setup.options, resolved.cache
    tokens = min(cache.context, resolved.ubatch)
    tokens = -(-tokens // cache.slots) * cache.slots
    types = (options.cache_type_k, options.cache_type_v)
    shape = BatchShape(
        tokens=tokens,
        sequences=cache.slots,
        outputs=min(resolved.outputs, tokens),
        flash=options.flash_attention,
        rotate_keys=_rotation(types[0], facts, lambda layer: layer.key_length, largest=True),
        rotate_values=_rotation(types[1], facts, lambda layer: layer.value_length, largest=False),
        cache=cache,
        homes=resolved.placement.homes,
        cache_homes=resolved.placement.caches,
        expert_homes=tuple(
            CPU if index < setup.overrides.experts_on_cpu else home
            for index, home in enumerate(resolved.placement.homes)
        ),
        cast_keys=types[0] == "f32",
        cast_values=types[1] == "f32",
        mixed_input=setup.build is None or setup.build > LAST_WITHOUT_MIXED_INPUT,
    )
    used = {*shape.homes, *shape.cache_homes} - {CPU}
    return buffer_sizes(BatchGraph(facts, shape).build(), len(setup.devices) if used else 0)


def _rotation(cache_type: str | None, facts: Facts, length: Callable[[Layer], int], *, largest: bool) -> int:
    """Quantized caches are rotated by a matrix of this side; 0 for none."""
    lengths = [length(layer) for layer in facts.layers if layer.heads_kv]
    if cache_type not in _QUANTIZED or not lengths or facts.mla is not None or any(item % 64 for item in lengths):
        return 0
    side = 64
    while largest and all(item % (2 * side) == 0 for item in lengths):
        side *= 2
    return side


def rough_compute(setup: Setup, resolved: Resolved) -> dict[int, int]:
    """Compute buffers by rule of thumb, on the safe side, for graphs that are not known."""
    facts, cache = setup.facts, resolved.cache
    widths = [_feed_forward_width(facts, layer) for layer in facts.layers] or [0]
    heads = max((layer.heads for layer in facts.layers), default=0)
    rows = resolved.ubatch * 4 * (4 * facts.n_embd + 3 * max(widths))
    sliding = cache.sliding if facts.window else 0
    mask = resolved.ubatch * (cache.sequence + sliding) * (2 if setup.options.flash_attention else 4)
    scores = 0 if setup.options.flash_attention else heads * resolved.ubatch * cache.sequence * 4
    size = int(_ROUGH_MARGIN * (rows + mask + scores))
    homes = set(resolved.placement.homes) | {CPU}
    return {home: size if home != CPU or homes == {CPU} else size // 8 for home in homes}


def _feed_forward_width(facts: Facts, layer: Layer) -> int:
    widths = [
        tensor.dims[1] for name, tensor in layer.tensors.items() if name == "ffn_up.weight" and len(tensor.dims) > 1
    ]
    widths += [
        tensor.dims[1] * max(facts.experts_used, 1)
        for name, tensor in layer.tensors.items()
        if name == "ffn_up_exps.weight" and len(tensor.dims) > 1
    ]
    state = facts.state.d_inner * 2 if facts.state is not None and layer.recurrent else 0
    return max([*widths, state])


def _add_offloaded_weights(sums: _Sums, setup: Setup, placement: Placement) -> None:
    """With layers on the CPU, a GPU computes long prompts also for them: their largest matrix passes through it."""
    gpus = [index for index, device in enumerate(setup.devices, start=1) if device.driver_context]
    if not gpus:
        return
    on_cpu = [
        tensor.size
        for index, layer in enumerate(setup.facts.layers)
        for name, tensor in layer.tensors.items()
        if placement.homes[index] == CPU or (setup.overrides.experts_on_cpu > index and "_exps" in name)
    ]
    if on_cpu:
        sums.compute[gpus[0]] += max(on_cpu)


def _add_others(sums: _Sums, setup: Setup, resolved: Resolved) -> None:
    options, companions = setup.options, setup.companions
    sums.other[CPU] += _prompt_cache(options)
    for index, device in enumerate(setup.devices, start=1):
        if device.driver_context:
            sums.other[index] += DRIVER_CONTEXT
    near = 1 if setup.devices and resolved.placement.homes[-1] != CPU else CPU
    sums.other[near] += companions.projector
    sums.other[near] += companions.adapters
    if companions.draft is not None:
        draft = estimate(_draft_setup(setup, companions.draft))
        for index, memory in enumerate(draft.devices):
            sums.other[index] += memory.weights + memory.kv + memory.compute + memory.output
    gpus = [index for index, device in enumerate(setup.devices, start=1) if device.driver_context]
    full = CPU not in resolved.placement.homes
    if len(gpus) > 1 and full and options.split_mode in (None, "layer"):
        sums.warnings.append(
            "several GPUs: the engine may keep up to "
            f"{_PIPELINE_COPIES} copies of its inputs to keep them busy, which is not counted"
        )


def _prompt_cache(options: LlamaCppOptions) -> int:
    if options.cache_ram_mib is None:
        return DEFAULT_CACHE_RAM
    return ENGINE_CACHE_RAM if options.cache_ram_mib < 0 else options.cache_ram_mib * MIB


def _draft_setup(setup: Setup, draft: Facts) -> Setup:
    """The draft model as the engine loads it: same context and slots, all layers where they fit, f16 cache."""
    options = setup.options.model_copy(
        update={"cache_type_k": None, "cache_type_v": None, "ngl": None, "cache_ram_mib": 0}
    )
    quiet = tuple(device.model_copy(update={"driver_context": False}) for device in setup.devices)
    return Setup(draft, options, quiet, overrides=Overrides(no_repack=True), build=setup.build)
