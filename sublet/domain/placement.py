"""Which host of many takes an instance: the first that has room, found in a tree of maxima.

First fit keeps the hosts at the end empty, and on one host it is plain admission.
"""

from __future__ import annotations

from sublet.domain.capacity import Amount


class Fleet:
    """What is free on each of many hosts. All that is asked or changed costs a walk through the
    tree, about log2(hosts) steps, however many hosts there are.

    Node `i` has the most free vCPUs and the most free bytes below it, of whatever hosts; its
    children are `2 i` and `2 i + 1`, and the hosts are the leaves.
    """

    def __init__(self, hosts: int, each: Amount) -> None:
        self._leaves = 1 << max(0, hosts - 1).bit_length()
        self._cpus = [0.0] * (2 * self._leaves)
        self._memory = [0] * (2 * self._leaves)
        for leaf in range(self._leaves, self._leaves + hosts):
            self._cpus[leaf], self._memory[leaf] = each.cpus, each.memory
        for node in range(self._leaves - 1, 0, -1):
            self._cpus[node] = max(self._cpus[2 * node], self._cpus[2 * node + 1])
            self._memory[node] = max(self._memory[2 * node], self._memory[2 * node + 1])

    def free(self, host: int) -> Amount:
        """What the host has left."""
        leaf = self._leaves + host
        return Amount(self._cpus[leaf], self._memory[leaf])

    def find(self, wanted: Amount) -> int | None:
        """The first host that has so much left; None where none has."""
        cpus, memory, leaves = self._cpus, self._memory, self._leaves
        least_cpus, least_memory = wanted.cpus, wanted.memory
        node = 1
        while True:
            if cpus[node] >= least_cpus and memory[node] >= least_memory:
                if node >= leaves:
                    return node - leaves
                node *= 2
                continue
            while node & 1:  # a right child: what is left of it has been looked at
                node >>= 1
            if not node:
                return None
            node += 1

    def take(self, host: int, amount: Amount) -> None:
        """The host has so much less."""
        self._change(host, -amount.cpus, -amount.memory)

    def give(self, host: int, amount: Amount) -> None:
        """The host has so much more."""
        self._change(host, amount.cpus, amount.memory)

    def _change(self, host: int, more_cpus: float, more_memory: int) -> None:
        cpus, memory = self._cpus, self._memory
        node = self._leaves + host
        cpus[node] = round(cpus[node] + more_cpus, 9)  # fractions add up to what they should
        memory[node] += more_memory
        while node > 1:
            node >>= 1
            left, right = 2 * node, 2 * node + 1
            most_cpus = cpus[left] if cpus[left] > cpus[right] else cpus[right]
            most_memory = memory[left] if memory[left] > memory[right] else memory[right]
            if most_cpus == cpus[node] and most_memory == memory[node]:
                return
            cpus[node], memory[node] = most_cpus, most_memory
