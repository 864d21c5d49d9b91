"""Files: links and climbing paths, by which a guest tries to reach what is not shared."""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading

from ..judging import breach_if, refused, runnable, tried_if
from ..scenes import Staged
from .exports import EXPORTS, NOT_THERE

probe = EXPORTS.probe

LINKS = """
def links(who, base, targets):
    for name, target in targets:
        os.symlink(target, f"{base}/{who}-{name}")
    for name, target in targets:
        path = f"{base}/{who}-{name}"
        attempt(f"read {name}", lambda: os.read(os.open(path, os.O_RDONLY), 1000))
        attempt(f"list {name}", lambda: os.listdir(path + "/."))
        attempt(f"make {name}", lambda: os.open(path + "/planted", os.O_CREAT | os.O_WRONLY))
"""


@probe(
    "links-out",
    "paths",
    "Symbolic links to files of the host are followed, absolute, relative and through /proc.",
    scene="staged",
    cites=("CVE-2026-39861", "CVE-2016-9602"),
)
async def links_out(scene: Staged) -> str:
    secret = str(scene.outside / "secret")
    targets = [
        ("absolute", secret),
        ("relative", "../../outside/secret"),
        ("deep", "../" * 30 + secret.lstrip("/")),
        ("process", "/proc/1/root" + secret),
        ("shadow", "/etc/shadow"),
        ("folder", str(scene.outside)),
    ]
    place = scene.workspace / "links"
    place.mkdir()
    jail = await scene.jail(LINKS + f"links('jail', {str(place)!r}, {targets!r})")
    base = scene.exported(place)
    root = await scene.root(
        LINKS
        + f"outcome.update(as_user({scene.agent_id}, lambda: links('root', {base!r}, {targets!r})))"
    )
    leads = (place / "jail-absolute").read_text() == scene.secret
    breach_if((scene.outside / "planted").exists(), "a file was made outside the shares")
    tried_if(leads, "the link does not lead to the secret on the host either")
    return " and ".join(refused(found, *NOT_THERE, at_least=18) for found in (jail, root))


@probe(
    "dot-dot",
    "paths",
    "Paths climb out of the export by “..”, from a folder and from a descriptor.",
    scene="staged",
)
async def dot_dot(scene: Staged) -> str:
    up, secret = "../" * 30, str(scene.outside / "secret").lstrip("/")
    code = f"""
paths = [{up!r} + {secret!r}, "../outside/secret", "../../outside/secret",
         "folder/../../outside/secret"]
for path in paths:
    attempt(path, lambda: os.read(os.open(BASE + "/" + path, os.O_RDONLY), 1000))
folder = os.open(BASE, os.O_RDONLY)
for path in paths:
    attempt("at " + path, lambda: os.read(os.open(path, os.O_RDONLY, dir_fd=folder), 1000))
"""
    jail = await scene.jail(f"BASE = {str(scene.workspace)!r}\n{code}")
    root = await scene.root(f"BASE = {scene.exported(scene.workspace)!r}\n{code}")
    return " and ".join(refused(found, *NOT_THERE, at_least=8) for found in (jail, root))


@probe(
    "link-race",
    "paths",
    "A folder and a link to the host are exchanged, on both sides, while the guest opens files.",
    scene="staged",
    cites=("CVE-2018-15664", "CVE-2021-30465"),
)
async def link_race(scene: Staged) -> str:
    place = scene.workspace / "race"
    (place / "swap").mkdir(parents=True)
    (place / "swap" / "secret").write_text("harmless")
    (place / "link").symlink_to(scene.outside)
    stop = threading.Event()
    one, other = os.fsencode(place / "swap"), os.fsencode(place / "link")

    def swap() -> int:
        libc, swaps = ctypes.CDLL(None, use_errno=True), 0
        while not stop.is_set():
            # renameat2(2) with RENAME_EXCHANGE: there is always one of both.
            swaps += libc.renameat2(-100, one, -100, other, 2) == 0
        return swaps

    swapping = asyncio.create_task(asyncio.to_thread(swap), name="swap")
    try:
        found = await scene.root(
            f"base = {scene.exported(place)!r}\n{RACE}"
            f"outcome.update(as_user({scene.agent_id}, race))"
        )
    finally:
        stop.set()
        swaps = await swapping
    runnable(found)
    breach_if(scene.secret in found, "the guest read a file outside the shares")
    breach_if((scene.outside / "planted").exists(), "the guest made a file outside the shares")
    opened, lost = int(found.pop("harmless", 0)), sum(map(int, found.values()))
    tried_if(swaps > 100 and opened > 0 and lost > 0, "the race was not run")
    return f"{swaps} exchanges; {opened} opens reached the folder, {lost} nothing, none the host"


RACE = """
def race():
    seen, began = {}, time.monotonic()
    def count(name):
        seen[name] = seen.get(name, 0) + 1
    def enough():   # a while, and on a busy host until both have happened, in bounded time
        both = seen.get("harmless", 0) > 2 and sum(seen.values()) - seen.get("harmless", 0) > 2
        return time.monotonic() - began > (1.2 if both else 12)
    while not enough():
        try:
            fd = os.open(base + "/swap/secret", os.O_RDONLY)
            count(os.read(fd, 100).decode())
            os.close(fd)
            os.close(os.open(base + "/swap/planted", os.O_CREAT | os.O_WRONLY, 0o600))
        except OSError as error:
            count(errno.errorcode[error.errno])
        try:   # the guest's own exchange, too
            check(libc.renameat2(-100, (base + "/swap").encode(), -100,
                                 (base + "/link").encode(), 2))
        except OSError as error:
            count(errno.errorcode[error.errno])
    for name, times in seen.items():
        outcome[name] = str(times)
"""


@probe(
    "hard-link-across-shares",
    "paths",
    "A file of one share is linked into another, where it could be written.",
    scene="staged",
)
async def hard_links(scene: Staged) -> str:
    outcome = await scene.jail(f"""
attempt("into the workspace", os.link, "/mnt/shared/file", {str(scene.workspace)!r} + "/planted")
attempt("into a writable share", os.link, "/mnt/shared/file", "/mnt/writable/planted")
attempt("a program", os.link, "/usr/bin/env", "/mnt/writable/planted-program")
attempt("rename", os.rename, "/mnt/shared/other", "/mnt/writable/planted-other")
""")
    return refused(outcome, "EXDEV", "EROFS", "EPERM", "EACCES", at_least=4)
