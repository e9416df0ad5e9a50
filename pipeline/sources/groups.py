"""Which recordings a split must not cut apart: union-find over whatever links them."""

from __future__ import annotations

from collections.abc import Iterable


class Groups:
    """Recordings joined by shared participants, sets and footage, transitively.

    Links are opaque strings such as ``participant-7`` or ``set-12``; the result does not depend on the
    order in which they were given.
    """

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def link(self, recording_id: str, links: Iterable[str]) -> None:
        """Put a recording together with everything that shares one of the links."""
        root = self._root(f"recording:{recording_id}")
        for name in links:
            self._join(root, f"link:{name}")

    def names(self, ids: Iterable[str]) -> dict[str, str]:
        """The group of each recording.

        Named after the group's least participant where one is known, else its least set; several
        recordings that only share footage are a ``set-`` of the least id, and a recording alone is itself.
        """
        members: dict[str, list[str]] = {}
        for node in self._parent:
            members.setdefault(self._root(node), []).append(node)
        named = {root: _name(nodes) for root, nodes in members.items()}
        return {one: named[self._root(f"recording:{one}")] if self._has(one) else one for one in ids}

    def _has(self, recording_id: str) -> bool:
        return f"recording:{recording_id}" in self._parent

    def _root(self, node: str) -> str:
        parent = self._parent.setdefault(node, node)
        while parent != node:
            above = self._parent[parent]
            self._parent[node] = above  # halves the path: later look-ups stay short
            node, parent = parent, above
        return node

    def _join(self, one: str, other: str) -> None:
        low, high = sorted((self._root(one), self._root(other)))
        self._parent[high] = low


def _name(nodes: list[str]) -> str:
    for prefix in ("link:participant-", "link:set-"):
        found = [node.removeprefix("link:") for node in nodes if node.startswith(prefix)]
        if found:
            return min(found, key=lambda name: (len(name), name))
    recordings = [node.removeprefix("recording:") for node in nodes if node.startswith("recording:")]
    return f"set-{min(recordings)}" if len(recordings) > 1 else recordings[0]
