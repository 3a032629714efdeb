"""How often each trial lost its worker, and when that is too often."""

from __future__ import annotations

from collections.abc import Callable

RETRIES = 3


class LostWorkers:
    """Counts them; what was lost with its node is no trial's fault.

    Args:
        is_nodes_fault: judges a node by its id, as it is now. A node's death may become known only
            after that of its workers, so past losses are judged anew each time.
    """

    def __init__(self, is_nodes_fault: Callable[[str], bool]) -> None:
        self._is_nodes_fault = is_nodes_fault
        self._nodes: dict[str, list[str]] = {}

    def note(self, key: str, node: str) -> None:
        """Takes a loss; an empty node is one that is not known, which excuses nothing."""
        self._nodes.setdefault(key, []).append(node)

    def too_often(self, key: str) -> bool:
        """Whether the trial should not get another worker."""
        nodes = self._nodes.get(key, [])
        if len(nodes) <= RETRIES:
            return False
        excused = {node for node in {*nodes} - {""} if self._is_nodes_fault(node)}
        return sum(node not in excused for node in nodes) > RETRIES
