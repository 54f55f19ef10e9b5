"""From a trained run to pictures: samples, images as the model sees them, and the way from one to another.

python examples/pictures.py run pictures-of-run one.jpg other.jpg
"""

import sys
from pathlib import Path

from lvae import Run


def main(path: str, out: str, *images: str) -> None:
    run, folder = Run.open(path), Path(out)
    print(run)
    folder.mkdir(exist_ok=True)

    samples = run.sample(16, seed=1)  # a sequence of images of Pillow; in a notebook the name alone shows them
    samples.save(folder / "samples.png")
    samples[0].resize((256, 256)).save(folder / "first.png")
    if run.classes is not None:
        run.sample(8, labels=run.classes[0], temperature=0.8).save(folder / "one-class.png")

    if len(images) >= 2:
        run.reconstruct(images, mean=True).save(folder / "reconstructions.png")
        run.interpolate(images[0], images[1], steps=8, mean=True).save(folder / "between.png")
        latents = run.encode(images[0])  # float32 (1, C, h, w), normalized as the model sees them
        run.decode(latents[:, :, :, ::-1]).save(folder / "mirrored.png")  # latents are images of their own
    print(f"{folder}: {', '.join(sorted(found.name for found in folder.glob('*.png')))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
