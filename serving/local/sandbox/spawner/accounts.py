"""User and groups of a container, looked up in its own /etc/passwd and /etc/group as container runtimes do."""

from __future__ import annotations


class Account:
    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


def _rows(path: str, fields: int) -> list[list[str]]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            rows = [line.rstrip("\n").split(":") for line in file]
    except OSError:
        return []
    return [row for row in rows if len(row) >= fields]


def resolve(user: str, extra_groups: list[int], *, users_file: str, groups_file: str) -> Account:
    """`user` is empty (root), `uid`, `name`, `uid:gid` or `name:group`. Raises LookupError for an unknown name."""
    name, _, group_name = user.partition(":")
    users = _rows(users_file, 7)
    groups = _rows(groups_file, 4)
    uid, gid, home, login = 0, 0, "/", ""
    wanted = name or "0"
    for row in users:
        if row[0] == wanted or (wanted.isdigit() and row[2] == wanted):
            uid, gid, home, login = int(row[2]), int(row[3]), row[5] or "/", row[0]
            break
    else:
        if not wanted.isdigit():
            raise LookupError(f"user {name!r} is not in the image's /etc/passwd")
        uid = int(wanted)
        home = "/root" if uid == 0 else "/"
    supplementary = set(extra_groups)
    if group_name:
        for row in groups:
            if row[0] == group_name or (group_name.isdigit() and row[2] == group_name):
                gid = int(row[2])
                break
        else:
            if not group_name.isdigit():
                raise LookupError(f"group {group_name!r} is not in the image's /etc/group")
            gid = int(group_name)
    if login:
        supplementary.update(int(row[2]) for row in groups if login in row[3].split(","))
    return Account(uid, gid, sorted(supplementary), home)
