"""All releases under way, of all revisions: found by id or by stream, and stored if a journal is given."""

from __future__ import annotations

from serving.activator.holds import Release
from serving.activator.journal import Journal


class Ledger:
    """Index over the ledgers of the throttles. Whatever a throttle releases is added, whatever it reports as
    ended is removed."""

    def __init__(self, journal: Journal | None, *, now: float) -> None:
        self._journal = journal
        self._releases: dict[int, tuple[str, Release]] = {}
        self._by_token: dict[int, int] = {}
        self._restored: dict[str, list[Release]] = {}
        if journal is not None:
            for entry in journal.restore(now):
                self._restored.setdefault(entry.revision, []).append(entry.release)

    def add(self, revision: str, release: Release) -> None:
        self._index(revision, release)
        if self._journal is not None:
            self._journal.add(revision, release)

    def remove(self, release_id: int) -> Release | None:
        """The release is over. Returns it, None for an unknown one."""
        known = self._releases.pop(release_id, None)
        if known is None:
            return None
        release = known[1]
        if self._by_token.get(release.hold.token) == release_id:
            del self._by_token[release.hold.token]
        if self._journal is not None:
            self._journal.remove(release_id)
        return release

    def find(self, *, release_id: int | None, token: int) -> tuple[str, Release] | None:
        """Revision and release by id, or by the stream's token when the stream never learnt the id."""
        wanted = self._by_token.get(token) if release_id is None else release_id
        return None if wanted is None else self._releases.get(wanted)

    def restore(self, revision: str) -> list[Release]:
        """Releases of the agent's former life, oldest first; once."""
        releases = self._restored.pop(revision, [])
        for release in releases:
            self._index(revision, release)
        return releases

    def restored_on(self, pod: str) -> int:
        """Releases of the former life on a pod whose revision is not known yet."""
        return sum(release.pod == pod for releases in self._restored.values() for release in releases)

    def close(self) -> None:
        """Let go of the file."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _index(self, revision: str, release: Release) -> None:
        self._releases[release.id] = (revision, release)
        self._by_token[release.hold.token] = release.id
