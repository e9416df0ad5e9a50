"""The reference of all options, ``docs/options.md``, made from their declarations.

python -m align.pipeline.cli.reference > docs/options.md
"""

from __future__ import annotations

from align.pipeline.cli.echo import echo
from align.pipeline.cli.options import shown
from align.pipeline.config import PARTS
from align.schemas.option import Declared, declared, range_text

_HEAD = """\
# Options

One name everywhere: the flag `--image-size 224`, the TOML key `image-size = 224` (or `image_size`) for
`--config`, and in Python `align.run(..., image_size=224)`, `RunConfig(image_size=224)` and
`config.sample.image_size`. A value may be given as text in all three. In a file, options may stand in tables
named as the parts below; an option in the wrong table, an unknown key and a key given twice are errors.
`align run --print-config` prints all of them as such a file.

This page is made from the declarations: `python -m align.pipeline.cli.reference > docs/options.md`.
"""
_PARTS = {
    "inputs": "what is read",
    "sample": "what a window is; a sample's bytes depend on these, and on `source`, `media` and `clocks`",
    "outputs": "what is written, and where",
    "execution": "how it is carried out",
}


def reference() -> list[str]:
    """The lines of the page."""
    lines = _HEAD.splitlines()
    for part, kind in PARTS.items():
        lines += [
            "",
            f"## `{part}`: {_PARTS[part]}",
            "",
            "| option | default | values | |",
            "|---|---|---|---|",
        ]
        lines += [_row(one) for one in declared(kind)]
    return lines


def _row(one: Declared) -> str:
    default = shown(one)
    cells = (f"`{one.flag}`", f"`{default}`" if default else "", _values(one), one.option.help)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _values(one: Declared) -> str:
    if one.option.choices:
        return ", ".join(f"`{choice}`" for choice in one.option.choices)
    if one.option.low is not None or one.option.high is not None:
        return range_text(one.option)
    return "switch" if one.is_switch else one.option.metavar


if __name__ == "__main__":
    echo(*reference())
