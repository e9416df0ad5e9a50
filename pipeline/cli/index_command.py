"""``align index``: weights, near-duplicates, and what other loaders want beside the shards."""

from __future__ import annotations

from typing import Any

import click

from align.pipeline.cli.echo import echo


@click.command(context_settings={"show_default": True})
@click.argument("out")
@click.option("--by", default="pattern", help="Balance by modality pattern, or by scenario.")
@click.option("--alpha", type=float, default=0.5, help="Draw classes as n^alpha: 1 as they are, 0 all alike.")
@click.option("--cap", type=float, default=8.0, help="Most draws of one window in an epoch.")
@click.option(
    "--distance", type=int, default=4, help="Bits by which hashes of near-duplicate pictures differ."
)
@click.option("--loaders", metavar="NAME,…", help="Also index the tar files for energon, dali, wids.")
@click.option("--threads", type=int, default=1, help="Shards looked at at a time.")
def index(out: str, loaders: str | None, threads: int, **given: Any) -> None:
    """Index a finished data set OUT for training.

    Writes OUT/index: per window its sampling weight, the window whose near-duplicate it is, and hashes of
    picture and narration. align.load uses it (balance=True, duplicates="drop").

    \b
    align index out --by scenario --loaders energon,dali
    """
    from align.pipeline.process.data_set_looks import indexing
    from align.pipeline.storage.files import absolute
    from align.pipeline.storage.stores import store
    from align.schemas.errors import UsageError
    from align.transforms.check.described import read_manifest, read_stats
    from align.transforms.index.balance import IndexOptions, add_index
    from align.transforms.index.loaders import write_loader_indexes
    from align.transforms.write.card import write_card
    from align.transforms.write.manifest import described, write_manifest

    options, place = IndexOptions(**given), store(out)
    try:
        sizes = {shard["path"]: shard["bytes"] for shard in read_manifest(place)["shards"]}
        with indexing(absolute(out), sizes, threads) as looker:
            found = add_index(place, options, threads=threads, looker=looker)
        files = write_loader_indexes(place, loaders.split(",")) if loaders else []
        manifest = read_manifest(place)
        write_card(place, manifest, read_stats(place))
        if "files" in manifest:
            files_described = described(place, [entry["path"] for entry in manifest["files"]])
            write_manifest(place, manifest | {"files": files_described})
    except FileNotFoundError:
        detail = f"{out} has no manifest.json; name the output folder of a finished align run"
        raise UsageError(detail) from None
    for split, classes in found["classes"].items():
        echo(f"{split}: windows and draws per epoch, by {options.by}")
        for label, said in sorted(classes.items(), key=lambda item: -item[1]["windows"]):
            echo(f"  {said['windows']:>9,}  x {said['weight']:<6.3g} {label or 'none'}")
    across = (
        f", {found['across_splits']:,} of them of a window in another split" if found["duplicates"] else ""
    )
    echo(f"near-duplicates: {found['duplicates']:,}{across}")
    if files:
        echo(f"indexes for {loaders}: {len(files)} files in {out}/webdataset")
