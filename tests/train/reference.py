"""The model once more, written from the facts as plain functions over a state dict, in float64.

No module, no class of ours: names are spelled out, convolutions are sums over shifted pictures, attention is a loop
over heads. Slow and obvious.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

B = 0.693
State = dict[str, Tensor]


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def softplus(u: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(B * u)) / B


def conv(w: State, name: str, x: Tensor) -> Tensor:
    """Cross-correlation with zeros around, as a sum over the kernel's places."""
    kernel = w[f"{name}.weight"]
    k, (h, v) = kernel.shape[2], x.shape[2:]
    padded = torch.nn.functional.pad(x, [k // 2] * 4)
    y = sum(
        torch.einsum("oi,bihw->bohw", kernel[:, :, a, b], padded[:, :, a : a + h, b : b + v])
        for a in range(k)
        for b in range(k)
    )
    assert isinstance(y, Tensor)
    bias = w.get(f"{name}.bias")
    return y if bias is None else y + bias[None, :, None, None]


def linear(w: State, name: str, t: Tensor) -> Tensor:
    return t @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def block(w: State, name: str, x: Tensor, label: Tensor | None) -> Tensor:
    """Any residual block: prior, posterior, shared or the encoder's."""
    regularized = name.endswith(("prior_block", "posterior_block"))
    h = x
    if label is not None:
        h = h + linear(w, f"{name}.classproj", label)[:, :, None, None]
    h = conv(w, f"{name}.conv1", silu(h))
    hidden = h.shape[1]
    if f"{name}.dense1.weight" in w:
        h = conv(w, f"{name}.conv2", silu(h))
        h = conv(w, f"{name}.dense1", silu(h))
        h = conv(w, f"{name}.dense2.conv" if regularized else f"{name}.dense2", silu(h))
    else:
        h = conv(w, f"{name}.conv2.conv" if regularized else f"{name}.conv2", silu(h))
    return x + h if not regularized and hidden == h.shape[1] else h


def unit(w: State, name: str, which: int, x: Tensor) -> Tensor:
    return w[f"{name}.norm.scale"][which] * x / ((x * x).mean(2, keepdim=True) + 1e-6).sqrt()


def attention(w: State, name: str, x: Tensor, heads: int, published: bool) -> Tensor:
    normalized = f"{name}.norm.scale" in w
    b, c, height, width = x.shape
    t = torch.stack([x[:, :, i, j] for i in range(height) for j in range(width)], dim=1)
    if heads == 1:
        q = linear(w, f"{name}.qproj", t)
        k = t
        if normalized:
            q, k = unit(w, name, 0, q), unit(w, name, 1, k)
        y = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(c), dim=2) @ t
    else:
        qkv = linear(w, f"{name}.qkvproj", t)
        q, k, v = qkv[..., :c], qkv[..., c : 2 * c], qkv[..., 2 * c :]
        if published:
            y = q
        else:
            n = c // heads
            parts = []
            for head in range(heads):
                at = slice(head * n, (head + 1) * n)
                one, other = q[..., at], k[..., at]
                if normalized:
                    one, other = unit(w, name, 0, one), unit(w, name, 1, other)
                scores = one @ other.transpose(1, 2) / math.sqrt(n)
                parts.append(torch.softmax(scores, dim=2) @ v[..., at])
            y = torch.cat(parts, dim=2)
    t = t + linear(w, f"{name}.outproj", y)
    return t.transpose(1, 2).reshape(b, c, height, width)


def places(n: int, k: int) -> list[int]:
    return [round(i * n / (k + 1)) for i in range(1, k + 1)]


def pool(x: Tensor, f: int) -> Tensor:
    b, c, h, v = x.shape
    return x.reshape(b, c, h // f, f, v // f, f).mean((3, 5))


def spread(x: Tensor, f: int) -> Tensor:
    return x.repeat_interleave(f, 2).repeat_interleave(f, 3)


def levels(c: dict[str, Any]) -> list[int]:
    found, r = [], c["resolution"]
    for _ in c["multipliers"]:
        r = 1 if r < 4 else r
        found.append(r)
        r = r // 2
    return found


def kl(mq: Tensor, vq: Tensor, mp: Tensor, vp: Tensor) -> Tensor:
    return (0.5 * (vq + (mq - mp) ** 2) / vp + 0.5 * (torch.log(vp) - torch.log(vq) - 1)).sum((1, 2, 3))


def sigma(w: State, name: str) -> Tensor:
    """One step from the stored vector, in the published orientation (HWIO)."""
    kernel = w[f"{name}.conv.weight"]
    matrix = kernel.permute(2, 3, 1, 0).reshape(-1, kernel.shape[0])
    v = w[f"{name}.singular_vectors"] @ matrix.T
    v = v / torch.sqrt((v * v).sum())
    u = v @ matrix
    u = u / torch.sqrt((u * u).sum())
    return (v @ matrix @ u.T)[0, 0]


def forward(
    w: State,
    c: dict[str, Any],
    x: Tensor,
    noise: list[Tensor],
    true: Tensor | None,
    told: Tensor | None,
    low: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """c: the config's fields. true, told: rows of the embedding. -> mean, log-variance, rates (L, B), spectral sum."""
    rs, z = levels(c), c["z_channels"]
    e_true = None if true is None else w["embed.weight"][true]
    e_told = None if told is None else w["embed.weight"][told]
    published = c["attention"] == "published"
    h = conv(w, "encoder.in_proj", x)
    acts = {}
    for i, r in enumerate(rs):
        j = 0
        name = f"encoder.encoder_levels.{i}.layer_list"
        for number in range(c["encoder_blocks"][i]):
            h = block(w, f"{name}.{j}", h, e_true)
            j += 1
            if number in places(c["encoder_blocks"][i], c["attentions"][i]):
                h = attention(w, f"{name}.{j}", h, c["heads"][i], published)
                j += 1
        acts[r] = h
        if i + 1 < len(rs):
            h = pool(h, 4 if r == 4 else 2)
            if f"{name}.{j}.conv_layer.weight" in w:
                h = conv(w, f"{name}.{j}.conv_layer", h)
    s = w["initial_x"].repeat(len(x), 1, 1, 1) if low is None else conv(w, "inproj", low)
    rates: list[Tensor] = []
    spectral = torch.zeros((), dtype=x.dtype)
    for i in reversed(range(len(rs))):
        j, r = 0, rs[i]
        name = f"layer_list.{len(rs) - 1 - i}.layer_list"
        for number in range(1, c["groups"][i] + 1):
            at = f"{name}.{j}"
            q = block(w, f"{at}.posterior_block", conv(w, f"{at}.actsproj", torch.cat([s, acts[r]], 1)), e_true)
            p = block(w, f"{at}.prior_block", s, e_told)
            mq, vq = q[:, :z], softplus(q[:, z:])
            if c["hierarchical_prior"]:
                mp, vp, p = p[:, :z], softplus(p[:, z : 2 * z]), p[:, 2 * z :]
            else:
                mp, vp = torch.zeros_like(mq), torch.ones_like(vq)
            final = "dense2" if c["ffn_ratios"][i] else "conv2"
            spectral = spectral + r * sigma(w, f"{at}.posterior_block.{final}")
            if c["hierarchical_prior"]:
                spectral = spectral + r * sigma(w, f"{at}.prior_block.{final}")
            value = mq + torch.sqrt(vq) * noise[len(rates)]
            rates.append(kl(mq, vq, mp, vp))
            s = block(w, f"{at}.shared_block", s + conv(w, f"{at}.zproj", value) + p, e_told)
            j += 1
            if number in places(c["groups"][i], c["attentions"][i]):
                s = attention(w, f"{name}.{j}", s, c["heads"][i], published)
                j += 1
        if i > 0:
            s = spread(s, 4 if r < 4 else 2)
            if f"{name}.{j}.conv_layer.weight" in w:
                s = conv(w, f"{name}.{j}.conv_layer", s)
    mean, log_variance = conv(w, "outproj", s).chunk(2, 1)
    return mean, log_variance, torch.stack(rates), spectral


def sample(
    w: State,
    c: dict[str, Any],
    noise: list[Tensor],
    label: Tensor | None,
    w_mean: list[float],
    w_var: list[float],
    temperature: float,
    low: Tensor | None = None,
) -> Tensor:
    """Both paths side by side, whatever the weights; these are one per resolution, lowest first."""
    rs, z = levels(c), c["z_channels"]
    embed = w.get("embed.weight")
    e_c = None if embed is None or label is None else embed[label]
    e_u = None if embed is None else embed[-1:].repeat(len(noise[0]), 1)
    published = c["attention"] == "published"
    s_c = w["initial_x"].repeat(len(noise[0]), 1, 1, 1) if low is None else conv(w, "inproj", low)
    s_u = s_c
    k = 0
    for place in range(len(rs)):
        i, j = len(rs) - 1 - place, 0
        for number in range(1, c["groups"][i] + 1):
            at = f"layer_list.{place}.layer_list.{j}"
            p_c, p_u = block(w, f"{at}.prior_block", s_c, e_c), block(w, f"{at}.prior_block", s_u, e_u)
            if c["hierarchical_prior"]:
                m_c, m_u = p_c[:, :z], p_u[:, :z]
                v_c, v_u = softplus(p_c[:, z : 2 * z]), softplus(p_u[:, z : 2 * z])
                p_c, p_u = p_c[:, 2 * z :], p_u[:, 2 * z :]
                mean = m_c + w_mean[place] * (m_c - m_u)
                variance = v_c * (v_c / v_u) ** w_var[place]
            else:
                mean, variance = torch.zeros_like(noise[k]), torch.ones_like(noise[k])
            value = conv(w, f"{at}.zproj", mean + temperature * torch.sqrt(variance) * noise[k])
            s_c = block(w, f"{at}.shared_block", s_c + value + p_c, e_c)
            s_u = block(w, f"{at}.shared_block", s_u + value + p_u, e_u)
            k, j = k + 1, j + 1
            if number in places(c["groups"][i], c["attentions"][i]):
                name = f"layer_list.{place}.layer_list.{j}"
                s_c = attention(w, name, s_c, c["heads"][i], published)
                s_u = attention(w, name, s_u, c["heads"][i], published)
                j += 1
        if i > 0:
            name, f = f"layer_list.{place}.layer_list.{j}.conv_layer", 4 if rs[i] < 4 else 2
            s_c, s_u = spread(s_c, f), spread(s_u, f)
            if f"{name}.weight" in w:
                s_c, s_u = conv(w, name, s_c), conv(w, name, s_u)
    return conv(w, "outproj", s_c).chunk(2, 1)[0]


def weights_of(k: float, threshold: float) -> float:
    """The rate's price of one group of one image, as the facts state it piece by piece."""
    if k < threshold:
        price = k / threshold
    elif k < 2 * threshold:
        price = 1.0
    elif k < 3 * threshold:
        price = (k - 2 * threshold) / threshold + 1
    else:
        price = 2.0
    return max(price, 0.1)


def total_loss(
    x: Tensor,
    out: tuple[Tensor, Tensor, Tensor, Tensor],
    shares: np.ndarray,  # type: ignore[type-arg]
    sigma_q: float,
    spectral_weight: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """-> total, reconstruction, rate, spectral."""
    mean, log_variance, rates, spectral = out
    s2, v = sigma_q**2, torch.exp(log_variance)
    recon = (0.5 * (s2 + (x - mean) ** 2) / v + 0.5 * (torch.log(v) - math.log(s2) - 1)).sum() / len(x)
    rate = torch.zeros((), dtype=x.dtype)
    for image in range(len(x)):
        whole = float(rates[:, image].detach().sum())
        for group in range(len(rates)):
            k = rates[group, image]
            rate = rate + weights_of(float(k.detach()), float(shares[group]) * whole / 100) * k / len(x)
    return recon + rate + spectral_weight * spectral, recon, rate, spectral_weight * spectral
