"""System calls that the default profile refuses, tried raw, and programs that work under it."""

from __future__ import annotations

# Run anywhere: prints what each call, by its number, answers. Arguments are such that no call does
# any harm where it is not refused. Numbers: x86_64, aarch64 (the kernel's tables).
TRIES = """
import ctypes, errno, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
column = 0 if os.uname().machine == "x86_64" else 1
def tried(numbers, *arguments):
    ctypes.set_errno(0)
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = libc.syscall(ctypes.c_long(numbers[column]), *words)
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]
BAD = -1
CALLS = {
    "mount": ((165, 40), BAD, BAD, BAD, 0, 0), "umount2": ((166, 39), BAD, 0),
    "pivot_root": ((155, 41), BAD, BAD), "open_tree": ((428, 428), BAD, BAD, 0),
    "move_mount": ((429, 429), BAD, BAD, BAD, BAD, 0), "fsopen": ((430, 430), BAD, 0),
    "fsconfig": ((431, 431), BAD, 0, 0, 0, 0), "fsmount": ((432, 432), BAD, 0, 0),
    "fspick": ((433, 433), BAD, BAD, 0), "mount_setattr": ((442, 442), BAD, BAD, 0, BAD, 0),
    "kexec_load": ((246, 104), 0, 99, BAD, 0), "kexec_file_load": ((320, 294), BAD, BAD, 0, 0, 0),
    "init_module": ((175, 105), BAD, 0, BAD), "finit_module": ((313, 273), BAD, BAD, 0),
    "delete_module": ((176, 106), BAD, 0), "bpf": ((321, 280), BAD, BAD, 0),
    "perf_event_open": ((298, 241), BAD, 0, 0, 0, 0), "userfaultfd": ((323, 282), BAD),
    "keyctl": ((250, 219), BAD, 0, 0, 0, 0), "add_key": ((248, 217), BAD, BAD, BAD, 0, 0),
    "request_key": ((249, 218), BAD, BAD, BAD, 0), "setns": ((308, 268), BAD, 0),
    "unshare": ((272, 97), 0x10000000), "unshare nothing": ((272, 97), 0),
    "open_by_handle_at": ((304, 265), BAD, BAD, 0), "fanotify_init": ((300, 262), BAD, 0),
    "process_vm_readv": ((310, 270), BAD, BAD, 0, BAD, 0, 0),
    "process_vm_writev": ((311, 271), BAD, BAD, 0, BAD, 0, 0),
    "pidfd_getfd": ((438, 438), BAD, 0, 0), "kcmp": ((312, 272), BAD, BAD, 99, 0, 0),
    "ptrace attach": ((101, 117), 16, BAD, 0, 0), "ptrace seize": ((101, 117), 0x4206, BAD, 0, 0),
    "reboot": ((169, 142), 0, 0, 0, 0), "swapon": ((167, 224), BAD, 0),
    "swapoff": ((168, 225), BAD), "sethostname": ((170, 161), BAD, BAD),
    "setdomainname": ((171, 162), BAD, BAD), "syslog": ((103, 116), 99, 0, 0),
    "quotactl": ((179, 60), 0, BAD, 0, 0), "acct": ((163, 89), BAD),
    "settimeofday": ((164, 170), BAD, BAD), "clock_settime": ((227, 112), 99, BAD),
    "io_uring_setup": ((425, 425), 0, BAD), "io_uring_enter": ((426, 426), BAD, 0, 0, 0, 0, 0),
    "io_uring_register": ((427, 427), BAD, 99, 0, 0),
    "clone3": ((435, 435), BAD, 0),
    # CLONE_SIGHAND without CLONE_VM, and CLONE_FS with CLONE_NEWNS: EINVAL where it is not refused.
    "clone user": ((56, 220), 0x10000000 | 0x800, 0, 0, 0, 0),
    "clone mounts": ((56, 220), 0x20000 | 0x200, 0, 0, 0, 0),
    "socket vsock": ((41, 198), 40, 1, 0), "socket crypto": ((41, 198), 38, 5, 0),
    "socket packet": ((41, 198), 17, 3, 0), "socket high bits": ((41, 198), 40 | 1 << 32, 1, 0),
    "unknown call": ((998, 998), 0),
}
print(json.dumps({name: tried(*call) for name, call in CALLS.items()}))
"""

_OTHERS = {
    **dict.fromkeys(("io_uring_setup", "io_uring_enter", "io_uring_register"), "ENOSYS"),
    **dict.fromkeys(("clone3", "unknown call"), "ENOSYS"),
    **dict.fromkeys(
        ("socket vsock", "socket crypto", "socket packet", "socket high bits"), "EAFNOSUPPORT"
    ),
}
_NAMES = (
    *("mount", "umount2", "pivot_root", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount"),
    *("fspick", "mount_setattr", "kexec_load", "kexec_file_load", "init_module", "finit_module"),
    *("delete_module", "bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key"),
    *("setns", "unshare", "open_by_handle_at", "fanotify_init", "process_vm_readv", "pidfd_getfd"),
    *("process_vm_writev", "kcmp", "reboot", "swapon", "swapoff", "sethostname", "setdomainname"),
    *("syslog", "quotactl", "acct", "settimeofday", "clock_settime"),
)
REFUSED: dict[str, str] = {
    **dict.fromkeys(_NAMES, "EPERM"),
    **dict.fromkeys(("unshare nothing", "ptrace attach", "ptrace seize"), "EPERM"),
    **dict.fromkeys(("clone user", "clone mounts"), "EPERM"),
    **_OTHERS,
}

C = '#include <stdio.h>\\n#include <pthread.h>\\nint main(void){puts("works");return 0;}'

# name: (the program without which there is nothing to try, a script that prints "works")
ALLOWED: dict[str, tuple[str, str]] = {
    "git": (
        "/usr/bin/git",
        "git init -q r; cd r; git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x; "
        "git clone -q . ../c; git -C ../c gc -q; git log --oneline >/dev/null; echo works",
    ),
    "python": (
        "/usr/bin/python3",
        "python3 -c 'import subprocess, threading, multiprocessing as m, asyncio, sqlite3, ssl\n"
        "with m.Pool(2) as pool: assert pool.map(abs, [-1, -2]) == [1, 2]\n"
        'subprocess.run(["true"], check=True); asyncio.run(asyncio.sleep(0))\n'
        't = threading.Thread(target=print, args=("works",)); t.start(); t.join()\'',
    ),
    "node": (
        "/usr/bin/node",
        "node -e 'const {Worker} = require(\"worker_threads\");"
        'require("child_process").execSync("true");'
        'require("fs").promises.readFile("file").then(() => console.log("works"));'
        "new Worker(\"0\", {eval: true})'",
    ),
    "npm": ("/usr/bin/npm", "npm init -y >/dev/null; npm pack --silent >/dev/null; echo works"),
    "gcc": ("/usr/bin/gcc", f"printf '%b' '{C}' > m.c; gcc -pthread -o m m.c; ./m"),
    "make": ("/usr/bin/make", "printf 'all:\\n\\t@echo works\\n' > Makefile; make -j2"),
    "debugger": (
        "/usr/bin/gdb",
        "gdb -batch -ex 'set startup-with-shell off' -ex run -ex 'print 1' /bin/true; echo works",
    ),
    "perl": ("/usr/bin/perl", "perl -e 'system(\"true\"); print \"works\\n\"'"),
    "java": ("/usr/bin/java", "java -Xshare:off -version 2>/dev/null && echo works"),
    "dpkg": ("/usr/bin/dpkg-deb", "mkdir -p d/DEBIAN; printf 'Package: a\\nVersion: 1\\n"
             "Architecture: all\\nMaintainer: a <a@b>\\nDescription: a\\n' > d/DEBIAN/control;"
             "dpkg-deb -b d a.deb >/dev/null; dpkg-deb -x a.deb x; echo works"),
    "tar": ("/usr/bin/tar", "tar -czf t.tgz file; tar -xzf t.tgz; echo works"),
    "pip": ("/usr/bin/pip3", "pip3 list >/dev/null; python3 -m venv --without-pip v; echo works"),
    "tmux": ("/usr/bin/tmux", "tmux -S ./t new-session -d 'sleep 9'; tmux -S ./t ls >/dev/null; "
             "tmux -S ./t kill-server; echo works"),
    "strace": ("/usr/bin/strace", "strace -f -o log sh -c 'true; true'; test -s log; echo works"),
    "cmake": ("/usr/bin/cmake", "cmake --version >/dev/null; echo works"),
    "rust": ("/usr/bin/rustc", "echo 'fn main() { std::thread::spawn(|| println!(\"works\"))"
             ".join().unwrap() }' > m.rs; rustc m.rs; ./m"),
    "go": ("/usr/bin/go", "printf 'package main\nfunc main() { c := make(chan int); go func() "
           "{ c <- 1 }(); <-c; println(\"works\") }' > m.go; GOCACHE=$PWD/c go build m.go; "
           "./m 2>&1"),
    "bash": ("/bin/bash", "bash -c 'coproc cat; for i in {1..20}; do (true) & done; wait %2; "
             "echo works'"),
}  # fmt: skip
