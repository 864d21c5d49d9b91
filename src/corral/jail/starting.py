"""The calls of what starts commands in a jail, which is under the same filter as the commands.

In a guest that is `corral_guest.jailed` with its built-in commands, on the host bubblewrap's first
process and setsid. As strace shows them, with their kin of other kernels, libraries and of aarch64.
A profile of the user's is widened by these: none of them is more than files that the jail has,
memory, and processes of its own.
"""

from __future__ import annotations

STARTING: tuple[str, ...] = (
    # programs and processes
    *(
        "execve",
        "clone",
        "fork",
        "vfork",
        "exit",
        "exit_group",
        "wait4",
        "waitid",
        "kill",
        "tgkill",
    ),
    *("setsid", "getpid", "gettid", "getpgid", "getppid", "getuid", "geteuid", "getgid", "getegid"),
    *("prctl", "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "futex", "sysinfo"),
    *("prlimit64", "getrandom", "uname", "umask", "restart_syscall"),
    # signals
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"),
    # memory
    *("brk", "mmap", "munmap", "mprotect", "mremap", "madvise"),
    # descriptors and waiting
    *("read", "write", "pread64", "pwrite64", "readv", "writev", "close", "close_range", "lseek"),
    *("dup", "dup2", "dup3", "fcntl", "ioctl", "pipe", "pipe2", "poll", "ppoll", "ftruncate"),
    *("epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "memfd_create"),
    *("recvmsg", "sendmsg", "sendto", "recvfrom", "getsockname", "getpeername", "getsockopt"),
    # names and attributes
    *(
        "open",
        "openat",
        "access",
        "faccessat",
        "faccessat2",
        "stat",
        "lstat",
        "fstat",
        "newfstatat",
    ),
    *("statx", "fstatfs", "statfs", "getcwd", "chdir", "fchdir", "getdents64", "readlink"),
    *("readlinkat", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat"),
    *("renameat2", "link", "linkat", "symlink", "symlinkat", "chmod", "fchmod", "fchmodat"),
    *("fchown", "fchownat", "lchown", "utimensat", "getxattr", "fgetxattr", "llistxattr"),
)
