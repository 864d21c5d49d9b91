"""What the host does with an agent's files, run in the agent's own jail and as the agent.

`jailed` forks a child of itself that calls one of these in place of a program: so a path means what
it means to the agent, no right is used that the agent lacks, and no new interpreter has to start.
Standard input, output and error are a command's. Paths are bytes; a relative one starts at the
command's working folder.

    read PATH                     the content to standard output
    write PATH [MODE]             the content from standard input, in pieces (`frame`); the file is
                                  there as a whole or as it was before
    list PATH                     a line for each entry of a folder (`describe`)
    stat PATH [nofollow]          one such line
    mkdir PATH MODE [parents]     MODE in octal digits
    remove PATH [recursive]
    pack PATH NAME [follow]       an archive (see tar.py) of PATH, which is called NAME in it;
                                  follow: what a link leads to, if PATH is one
    unpack FOLDER                 an archive from standard input into a folder that is there

The status says how it went: DONE; FAILED with the errno and what it was about as one JSON line on
standard error; BROKEN when the input ended before its end, or was no good. `pack` leaves out what
no archive should hold (sockets, devices, pipes) and names it on standard error, a JSON line each.
"""

from __future__ import annotations

import json
import os
import stat

from . import tar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DONE, FAILED, BROKEN, MISUSED = 0, 1, 2, 3
PIECE = 1 << 16  # bytes: of one read, and of one piece at most
MAX_LEFT_OUT = 100  # names that `pack` says
_IN, _OUT, _ERR = 0, 1, 2
_KINDS = {stat.S_IFREG: tar.FILE, stat.S_IFDIR: tar.FOLDER, stat.S_IFLNK: tar.LINK}
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Broken(Exception):
    """What came from the host is incomplete or makes no sense."""


def frame(data: bytes | memoryview) -> bytes:
    """One piece for `write`: its length in four bytes, big endian, and itself; empty is the end."""
    return len(data).to_bytes(4, "big") + data


def bytewise(path: bytes) -> str:
    """Bytes as text that JSON carries: one character a byte."""
    return path.decode("latin-1")


def run(argv: list[bytes]) -> int:
    """Do what argv says; returns the status."""
    try:
        ACTIONS[argv[0]](*argv[1:])
    except OSError as error:
        about = error.filename if isinstance(error.filename, (bytes, str)) else argv[1]
        _say({"errno": error.errno or 0, "path": bytewise(os.fsencode(about))[: tar.MAX_PATH]})
        return FAILED
    except (Broken, tar.ArchiveError) as error:
        _say({"broken": str(error)})
        return BROKEN
    except (TypeError, ValueError, KeyError):
        return MISUSED
    return DONE


def read(path: bytes) -> None:
    """The content of a file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        raise IsADirectoryError(21, "", path)
    while data := os.read(fd, PIECE):
        _write(_OUT, data)


def write(path: bytes, mode: bytes = b"") -> None:
    """Put a file in place as a whole: under another name first, in the same folder."""
    target = os.path.realpath(path)
    bits = int(mode, 8) if mode else -1
    try:
        # Also tells whether it may be written: renaming needs rights on the folder only.
        fd = os.open(target, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if path.endswith(b"/"):
            raise
    else:
        found = os.fstat(fd)
        os.set_blocking(fd, True)
        if not stat.S_ISREG(found.st_mode):  # a device, a pipe: there is nothing to replace
            return _receive(fd)
        bits = stat.S_IMODE(found.st_mode) & 0o777 if bits < 0 else bits
        os.close(fd)
    folder, name = os.path.split(target)
    scratch = b"%s/.%s.corral-%d" % (folder, name[:200], os.getpid())
    try:
        fd = os.open(scratch, _NEW, 0o666 if bits < 0 else bits)
    except OSError as error:
        error.filename = path
        raise
    try:
        _receive(fd)
        if bits >= 0:
            os.fchmod(fd, bits)
        os.rename(scratch, target)
    except BaseException as error:
        os.unlink(scratch)
        if isinstance(error, OSError):
            error.filename = path
        raise


def list_(path: bytes) -> None:
    """A line for each entry."""
    lines: list[bytes] = []
    with os.scandir(path) as entries:
        for entry in entries:
            try:
                lines.append(describe(entry.name, entry.stat(follow_symlinks=False), entry.path))
            except FileNotFoundError:
                continue  # removed meanwhile
            if len(lines) > 200:
                _write(_OUT, b"".join(lines))
                lines.clear()
    _write(_OUT, b"".join(lines))


def stat_(path: bytes, follow: bytes = b"") -> None:
    """One line."""
    found = os.stat(path, follow_symlinks=follow != b"nofollow")
    name = os.path.basename(os.path.realpath(path) if follow != b"nofollow" else path.rstrip(b"/"))
    _write(_OUT, describe(name, found, path))


def describe(name: bytes, found: os.stat_result, path: bytes) -> bytes:
    """A JSON line: name and target bytewise, kind, mode (12 bits), size in bytes, time in ns."""
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), tar.OTHER)
    return json.dumps({
        "name": bytewise(name),
        "kind": kind,
        "mode": stat.S_IMODE(found.st_mode),
        "size": found.st_size,
        "time": found.st_mtime_ns,
        "target": bytewise(os.readlink(path)) if kind == tar.LINK else "",
    }).encode() + b"\n"  # fmt: skip


def mkdir(path: bytes, mode: bytes, parents: bytes = b"") -> None:
    """Make a folder; with parents, those above it, and no error when it is there."""
    if parents:
        os.makedirs(path, int(mode, 8), exist_ok=True)
    else:
        os.mkdir(path, int(mode, 8))


def remove(path: bytes, recursive: bytes = b"") -> None:
    """Remove a file, a link or an empty folder; recursive: a folder with all that is in it."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
    elif recursive:
        _remove_tree(path)
    else:
        os.rmdir(path)


def _remove_tree(path: bytes) -> None:
    folders, pending = [], [path]
    while pending:
        folder = pending.pop()
        folders.append(folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    os.unlink(entry.path)
    for folder in reversed(folders):
        os.rmdir(folder)


def pack(path: bytes, name: bytes, follow: bytes = b"") -> None:
    """An archive of one file, link or folder with all that is in it."""
    left_out: list[bytes] = []
    if follow:
        path = os.path.realpath(path, strict=True)
    pending = [(path, name)]
    while pending:
        path, name = pending.pop()
        found = os.lstat(path)
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), tar.OTHER)
        entry = tar.Entry(name, kind, found.st_mode & 0o777, 0, int(found.st_mtime))
        if kind == tar.OTHER:
            left_out.append(name)
        elif kind == tar.FILE:
            _pack_file(path, entry)
        elif kind == tar.LINK:
            entry.target = os.readlink(path)
            _write(_OUT, tar.header(entry))
        else:
            below = sorted(os.listdir(path), reverse=True)
            _write(_OUT, tar.header(entry))
            pending += [(path + b"/" + each, name + b"/" + each) for each in below]
    for each in left_out[:MAX_LEFT_OUT]:
        _say({"left_out": bytewise(each)})
    _write(_OUT, tar.END)


def _pack_file(path: bytes, entry: tar.Entry) -> None:
    """A file of the size that it has now, whatever is done to it meanwhile."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    left = entry.size = os.fstat(fd).st_size
    head = tar.header(entry)
    while left:
        data = os.read(fd, min(left, PIECE))
        data = data or bytes(min(left, PIECE))
        left -= len(data)
        _write(_OUT, head + data)
        head = b""
    os.close(fd)
    _write(_OUT, head + tar.padding(entry.size))


def unpack(folder: bytes) -> None:
    """An archive into a folder. Files that are there are replaced, folders filled and else kept."""
    os.chdir(folder)
    reader = tar.Reader()
    fd, entry = -1, None
    folders: list[tar.Entry] = []
    while not reader.ended:
        data = os.read(_IN, PIECE)
        if not data:
            raise Broken("the archive ended before its end")
        for event in reader.feed(data):
            if isinstance(event, bytes):
                _write(fd, event)
            else:
                entry = event
                tar.check_path(entry.path)
                fd = _unpack(entry, folders)
            if fd >= 0 and entry is not None and not reader.left:
                _finish(fd, entry)
                fd = -1
    for entry in reversed(folders):
        os.chmod(entry.path, entry.mode)
        os.utime(entry.path, (entry.time, entry.time))
    while os.read(_IN, PIECE):  # what follows the end is part of no file
        pass


def _unpack(entry: tar.Entry, folders: list[tar.Entry]) -> int:
    """Make one entry; returns the descriptor that its content is to be written to, or -1."""
    path = entry.path
    entry.mode &= 0o777
    if entry.kind == tar.FOLDER:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
        else:
            folders.append(entry)
        return -1
    if os.path.lexists(path):
        os.unlink(path)
    if entry.kind == tar.LINK:
        os.symlink(entry.target, path)
    elif entry.kind == tar.HARD_LINK:
        tar.check_path(entry.target)
        os.link(entry.target, path, follow_symlinks=False)
    elif entry.kind == tar.FILE:
        return os.open(path, _NEW, 0o600)
    else:
        raise Broken("an entry that is no file, folder or link")
    return -1


def _finish(fd: int, entry: tar.Entry) -> None:
    os.fchmod(fd, entry.mode)
    os.utime(fd, (entry.time, entry.time))
    os.close(fd)


def _receive(fd: int) -> None:
    """Pieces (see `frame`) from standard input until the empty one."""
    while True:
        size = int.from_bytes(_exactly(4), "big")
        if size > PIECE:
            raise Broken("a piece that is too long")
        if not size:
            return
        _write(fd, _exactly(size))


def _exactly(size: int) -> bytes:
    data = os.read(_IN, size)
    while len(data) < size:
        more = os.read(_IN, size - len(data))
        if not more:
            raise Broken("the content ended before its end")
        data += more
    return data


def _write(fd: int, data: bytes) -> None:
    size = os.write(fd, data) if data else 0
    while size < len(data):
        data = data[size:]
        size = os.write(fd, data)


def _say(record: dict[str, object]) -> None:
    _write(_ERR, json.dumps(record).encode() + b"\n")


ACTIONS: dict[bytes, Callable[..., None]] = {
    b"read": read,
    b"write": write,
    b"list": list_,
    b"stat": stat_,
    b"mkdir": mkdir,
    b"remove": remove,
    b"pack": pack,
    b"unpack": unpack,
}
