"""What it costs to encode an image: multiplications (each with its addition), counted on paper."""

from lvae.encode.catalogue.architectures import LdmSpec, PixelsSpec, Spec, TinySpec, UpsamplerSpec


def multiply_adds(spec: Spec, size: int) -> int:
    """Of convolutions and attention, for one size x size image. `size`: a multiple of the downsampling factor."""
    match spec:
        case LdmSpec():
            return _ldm(spec, size)
        case TinySpec():
            return _tiny(spec, size)
        case UpsamplerSpec() | PixelsSpec():
            return 0


def _ldm(spec: LdmSpec, size: int) -> int:
    """See `encode/networks/ldm.py`."""
    widths = [spec.width * multiplier for multiplier in spec.multipliers]
    positions, inputs, total = size**2, spec.width, 9 * 3 * spec.width * size**2
    for level, width in enumerate(widths):
        for _ in range(spec.blocks):
            total += positions * _residual_block(inputs, width)
            total += _attention(width, positions) if level in spec.attention_levels else 0
            inputs = width
        if level < len(widths) - 1:
            positions //= 4
            total += positions * 9 * width * width
    total += positions * 2 * _residual_block(inputs, inputs)
    total += _attention(inputs, positions) if spec.middle_attention else 0
    outputs = spec.latent_channels * (2 if spec.kind == "kl" else 1)
    return total + positions * (9 * inputs * outputs + outputs * outputs)


def _residual_block(inputs: int, outputs: int) -> int:
    """Of one position."""
    return 9 * inputs * outputs + 9 * outputs * outputs + (inputs * outputs if inputs != outputs else 0)


def _attention(channels: int, positions: int) -> int:
    """Four products with weights, two of positions with positions."""
    return 4 * channels * channels * positions + 2 * channels * positions**2


def _tiny(spec: TinySpec, size: int) -> int:
    """See `encode/networks/tiny.py`."""
    first, *deeper = spec.widths
    positions = (size // spec.patch) ** 2
    total = positions * 9 * (3 * spec.patch**2 * first + 3 * first * first)
    for shallow, deep in zip(spec.widths, deeper, strict=False):
        positions //= 4
        total += positions * 9 * (shallow * deep + spec.blocks * 3 * deep * deep)
    return total + positions * 9 * spec.widths[-1] * spec.latent_channels
